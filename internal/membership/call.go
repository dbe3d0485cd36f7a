package membership

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"dim/internal/control"
	"dim/internal/control/wire"
)

// refuse answers a call with an error.
func refuse(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*control.Error](err)
	if !ok {
		e = control.Errorf(control.Internal, "%v", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(w).Encode(wire.Line{Error: e})
}

// post makes a call with a JSON body that answers with a JSON object.
func post[T any](ctx context.Context, hc *http.Client, to string, in any) (answer T, err error) {
	b, err := json.Marshal(in)
	if err != nil {
		return answer, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(b))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := hc.Do(req)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the caller names the server
	}
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		var refused wire.Line
		if resp.Header.Get("Content-Type") == "application/json" &&
			json.NewDecoder(io.LimitReader(body, maxJoin)).Decode(&refused) == nil && refused.Error != nil {
			return answer, refused.Error
		}
		text, _ := io.ReadAll(io.LimitReader(body, 500))
		return answer, fmt.Errorf("it answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("read the answer: %v", err)
	}
	return answer, nil
}
