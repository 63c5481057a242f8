package auth

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxFile bounds what is read of a file or an answer, in bytes.
const maxFile = 1 << 20

// watchEvery is how often a file is looked at.
const watchEvery = 5 * time.Second

// APIKeyFile takes the keys of a file of at most 1 MiB, one a line: a subject, a hash, scopes, and maybe until=, a time of RFC 3339.
// Empty lines and those that start with # don't count. A # where a scope may be is a fault, and so is what is no scope (RFC 6749,
// 3.3): words that are meant for people must not become scopes.
//
//	# who   SHA-256 of the key                                                scopes
//	ann     2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae  math:read math:write
//	batch   fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9  math:read until=2027-01-31T00:00:00Z
//
// Requests look whether the file has changed, every five seconds at most, and read it again then. A file without a key is a fault at
// the start only: later its last key was taken out, so nobody is let in any more, which is logged. If the file can't be read, or
// a line is wrong, the keys that were read before stay good, and the fault is logged to slog.Default() as it is when APIKeyFile is
// called. Write a new file beside the old one and rename it: one that is half written may have half of the keys. A stream
// that is open goes on, whatever becomes of its key ([APIKeys]).
//
// The error names all faults of the file with their lines.
func APIKeyFile(path string) (Authenticator, error) { return APIKeyFileLog(path, nil) }

// APIKeyFileLog is [APIKeyFile] that logs what becomes of the file to log; nil is slog.Default() as it is now.
func APIKeyFileLog(path string, log *slog.Logger) (Authenticator, error) {
	if log == nil {
		log = slog.Default()
	}
	f := &keyFile{path: path, log: log}
	list, err := f.read()
	if err == nil && len(list.byHash) == 0 {
		err = fmt.Errorf("auth: %s: %w", path, errNoKey)
	}
	if err != nil {
		return nil, err
	}
	f.list.Store(list)
	f.looked = time.Now()
	return f.authenticate, nil
}

type keyFile struct {
	path string
	log  *slog.Logger
	list atomic.Pointer[keyList]

	mu     sync.Mutex // held by who looks
	looked time.Time
	state  fileState
}

// fileState tells one content of a file from the next.
type fileState struct {
	size     int64
	modified time.Time
}

func (f *keyFile) authenticate(r *http.Request) (context.Context, error) {
	f.look()
	return f.list.Load().authenticate(r)
}

// look is for one at a time; others go on with what there is.
func (f *keyFile) look() {
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	if time.Since(f.looked) < watchEvery {
		return
	}
	f.looked = time.Now()
	if info, err := os.Stat(f.path); err == nil && f.state == (fileState{info.Size(), info.ModTime()}) {
		return
	}
	list, err := f.read()
	if err != nil {
		f.log.Error("the file of API keys can't be read again; what was read before counts", "path", f.path, "error", err)
		return
	}
	if len(list.byHash) == 0 {
		f.log.Warn("the file of API keys has no key any more: nobody is let in by one", "path", f.path)
	}
	f.list.Store(list)
}

func (f *keyFile) read() (*keyList, error) {
	data, state, err := readFile(f.path)
	if err != nil {
		return nil, err
	}
	f.state = state
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("auth: %s: %w", f.path, err)
	}
	return newKeyList(keys)
}

// readFile reads a file of bounded size.
func readFile(path string) ([]byte, fileState, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fileState{}, err
	case info.Size() > maxFile:
		return nil, fileState{}, fmt.Errorf("auth: %s has %d bytes, at most %d are read", path, info.Size(), maxFile)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the operator names it
	return data, fileState{info.Size(), info.ModTime()}, err
}

func parseKeys(data []byte) ([]Key, error) {
	var keys []Key
	var faults []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		k, err := parseKey(fields)
		if err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		keys = append(keys, k)
	}
	return keys, errors.Join(append(faults, lines.Err())...)
}

func parseKey(fields []string) (Key, error) {
	if len(fields) < 2 {
		return Key{}, errors.New("a subject and a hash are needed")
	}
	k := Key{Subject: fields[0], Hash: fields[1]}
	for _, f := range fields[2:] {
		until, ok := strings.CutPrefix(f, "until=")
		switch t, err := time.Parse(time.RFC3339, until); {
		case strings.HasPrefix(f, "#"):
			return Key{}, errors.New("a comment needs a line of its own: behind a key its words would be scopes")
		case ok && err != nil:
			return Key{}, fmt.Errorf("%q is no time of RFC 3339, such as until=2027-01-31T00:00:00Z", until)
		case ok:
			k.Expires = t
		case !isScope(f):
			return Key{}, fmt.Errorf("%q is no scope (RFC 6749, 3.3)", f)
		default:
			k.Scopes = append(k.Scopes, f)
		}
	}
	return k, nil
}
