package bus

// Slots returns how many reply slots are taken.
func (b *Bus) Slots() int { return b.mux.inUse() }

// Table returns how many reply slots there are.
func (b *Bus) Table() int { return len(*b.mux.table.Load()) }
