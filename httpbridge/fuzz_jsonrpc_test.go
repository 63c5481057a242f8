package httpbridge_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postbus.example/httpbridge"
)

// rpcAnswer is what the specification lets an answer be.
type rpcAnswer struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// FuzzJSONRPC: whatever arrives, the answer is one of JSON-RPC or none, and only what is exposed is called.
func FuzzJSONRPC(f *testing.F) {
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"svc.add","params":{}}`, `[{"jsonrpc":"2.0","method":"svc.add"},{},1]`, `[]`, `null`,
		`{"jsonrpc":"2.0","id":"\ud800","method":"svc.>"}`, `{"jsonrpc":"2.0","id":null,"id":1,"method":"$SYS"}`, "[\"\xff\"]",
		`{"jsonrpc":"2.0","id":1e999,"method":"svc.add","params":[1]}`, `{"":{}} `, "\ufeff{}", "\v1",
	} {
		f.Add(body)
	}
	w := &witness{exposed: []string{"svc.add", "acme.>"}}
	b := httpbridge.New(w, silence, httpbridge.Expose(w.exposed...), httpbridge.WithJSONRPC(""), httpbridge.WithLimits(httpbridge.Limits{Concurrent: 1}))
	f.Fuzz(func(t *testing.T, body string) {
		w.t = t
		r := httptest.NewRequest(http.MethodPost, "/rpc", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		b.ServeHTTP(rec, r)
		if rec.Code == 204 && rec.Body.Len() == 0 || rec.Code == 413 && len(body) > 1<<20 {
			return
		}
		if rec.Code != 200 {
			t.Fatalf("%q: %d %s", body, rec.Code, rec.Body)
		}
		var answers []rpcAnswer
		if rec.Body.Bytes()[0] != '[' {
			answers = make([]rpcAnswer, 1)
			if err := json.Unmarshal(rec.Body.Bytes(), &answers[0]); err != nil {
				t.Fatalf("%q: %v in %s", body, err, rec.Body)
			}
		} else if err := json.Unmarshal(rec.Body.Bytes(), &answers); err != nil || len(answers) == 0 {
			t.Fatalf("%q: %v in %s", body, err, rec.Body)
		}
		for _, a := range answers {
			if a.Version != "2.0" || a.ID == nil || (a.Result == nil) == (a.Error == nil) || a.Error != nil && (a.Error.Code > -32000 || a.Error.Message == "") {
				t.Fatalf("%q: %s", body, rec.Body)
			}
			if !json.Valid([]byte(body)) && a.Error.Code != -32700 {
				t.Fatalf("%q is not JSON: %s", body, rec.Body)
			}
			if id := string(a.ID); id != "null" && !strings.Contains(body, id) {
				t.Fatalf("%q: the id %s is nobody's", body, id)
			}
		}
	})
}
