package identity

import "sync"

// kept is how many values of one generation a memory has.
const kept = 1024

// recent remembers what was made lately, in bounded memory: when one generation is full, the one before it is forgotten.
type recent[K comparable, V any] struct {
	mu         sync.Mutex
	young, old map[K]V
}

func (m *recent[K, V]) get(key K) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok = m.young[key]; ok {
		return v, true
	}
	if v, ok = m.old[key]; ok {
		m.put(key, v)
	}
	return v, ok
}

func (m *recent[K, V]) add(key K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, v)
}

func (m *recent[K, V]) put(key K, v V) {
	if len(m.young) >= kept {
		m.old, m.young = m.young, nil
	}
	if m.young == nil {
		m.young = make(map[K]V)
	}
	m.young[key] = v
}
