package bus_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"postbus.example/internal/assert"
)

// catalogue is every known way for a call over a broker to fail. The tests of a row begin with TestRow and its number.
var catalogue = [...]string{
	1:  "nobody listens",
	2:  "the service has just subscribed, the caller is on another node",
	3:  "the subscriber's queue overflows",
	4:  "the connection is lost after the request was published",
	5:  "published while disconnected",
	6:  "the responder is killed",
	7:  "a rolling restart",
	8:  "a drain that a reconnect interrupts leaves a ghost in the queue group",
	9:  "the broker denies the request",
	10: "the broker denies the inbox",
	11: "the broker denies the reply",
	12: "a request or reply over max_payload",
	13: "a panic, a failure to encode, an unknown codec",
	14: "the broker finds a consumer too slow",
	15: "a JetStream stream covers the subject",
	16: "a reply with a header Status: 503",
	17: "replies that come twice",
	18: "the deadline passed while the call waited",
	19: "a subject that is too long or has bad tokens",
	20: "credentials that expire or are revoked",
	21: "a request whose publish fails",
	22: "Nats-Trace-Only from outside",
	23: "a TCP write that is stuck",
	24: "a control subject outside of the root",
	25: "the request is delivered after its caller left",
}

func TestCatalogue(t *testing.T) {
	tests := map[int]int{}
	name := regexp.MustCompile(`(?m)^func TestRow(\d+)`)
	for _, dir := range []string{".", "bustest", "../httpbridge"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		assert.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			assert.NoError(t, err)
			for _, m := range name.FindAllStringSubmatch(string(text), -1) {
				row, err := strconv.Atoi(m[1])
				assert.NoError(t, err, m[0])
				tests[row]++
			}
		}
	}
	for row, what := range catalogue {
		if row > 0 && tests[row] == 0 {
			t.Errorf("row %d, %s, has no test", row, what)
		}
		delete(tests, row)
	}
	for row := range tests {
		t.Errorf("row %d is not in the catalogue", row)
	}
}
