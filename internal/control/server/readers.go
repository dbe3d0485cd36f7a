package server

import (
	"context"
	"net/http"
	"strings"

	"dim/internal/control"
)

// readable are the calls that members of the group of readers may make: the status and the listings. The description
// is not one of them, because templates may hold passwords, and neither are names of files.
func readable() []string {
	return []string{
		"GET /v1/status", "GET /v1/images", "GET /v1/images/{image}/versions", "GET /v1/versions/{ref}",
		"GET /v1/nodes", "GET /v1/nodes/{node}", "GET /v1/nodes/{node}/boots", "GET /v1/machines",
		"GET /v1/rollouts", "GET /v1/rollouts/{id}", "GET /v1/snapshots", "GET /v1/mounts", "GET /v1/servers",
	}
}

// forwarded are the calls about nodes, masters and load tests that heads make to other servers.
func forwarded() []string {
	const node = "/v1/nodes/{node}"
	return []string{
		"GET " + node, "GET " + node + "/boots", "GET " + node + "/changes", "GET " + node + "/diff/{other}",
		"GET " + node + "/saved", "GET " + node + "/rendered",
		"POST " + node + "/restore", "POST " + node + "/forget", "POST " + node + "/reset",
		"POST " + node + "/accept", "POST " + node + "/restore-snapshot", "GET /v1/snapshots", "GET /v1/check",
		"GET /v1/host-keys",
		"GET /v1/machines", "GET /v1/rollouts/{id}", "GET " + node + "/side", "POST " + node + "/contents",
		"POST /v1/layers/remove", "POST /v1/rollouts/preview", "POST /v1/verify", "POST /v1/storms",
		"GET /v1/storms/{id}", "DELETE /v1/storms/{id}", "POST /v1/captures", "POST /v1/watches",
	}
}

// NodeCalls returns a handler of the calls about nodes, masters and load tests that heads make to other servers. It
// does not check who calls.
func NodeCalls(b control.Backend) http.Handler {
	all := newMux(b)
	mux := http.NewServeMux()
	for _, call := range forwarded() {
		mux.Handle(call, all)
	}
	return mux
}

// newReadersMux answers what readers may call and refuses everything else.
func newReadersMux(b control.Backend) *http.ServeMux {
	all := newMux(withoutSecrets{b})
	mux := http.NewServeMux()
	for _, call := range readable() {
		mux.Handle(call, all)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		what := "change anything"
		if r.Method == http.MethodGet {
			what = "read that: it may have passwords, or names of files of users"
		}
		refuse(w, control.Errorf(control.Denied, "only root may %s", what).
			WithHint("run as root; members of the group dim may only read the status and the listings"))
	})
	return mux
}

// withoutSecrets leaves out of what readers get what people may write passwords into, which is commands with their
// output, and kernel arguments; and the names of files that nodes have changed.
type withoutSecrets struct{ control.Backend }

// hidden stands for a text that readers do not get.
const hidden = "(hidden)"

func hide(text *string) {
	if *text != "" {
		*text = hidden
	}
}

func hideAllSecrets(list []control.Rollout) {
	for i := range list {
		hideSecrets(&list[i])
	}
}

// hideSecrets hides the hook and the check, and how one of them failed, which has a line of its output. It leaves out
// the paths that were set aside.
func hideSecrets(r *control.Rollout) {
	hide(&r.Hook)
	hide(&r.Check)
	if command, _, ok := strings.Cut(r.Reason, ": "); ok && (command == "hook" || command == "check") {
		r.Reason = command + ": " + hidden
	}
	for i := range r.Own {
		r.Own[i].First = []control.Path{}
	}
}

// Status implements control.Backend.
func (b withoutSecrets) Status(ctx context.Context) (control.Status, error) {
	s, err := b.Backend.Status(ctx)
	hideAllSecrets(s.Rollouts)
	return s, err
}

// Rollouts implements control.Backend.
func (b withoutSecrets) Rollouts(ctx context.Context) ([]control.Rollout, error) {
	list, err := b.Backend.Rollouts(ctx)
	hideAllSecrets(list)
	return list, err
}

// RolloutStatus implements control.Backend.
func (b withoutSecrets) RolloutStatus(ctx context.Context, id int) (control.Rollout, error) {
	r, err := b.Backend.RolloutStatus(ctx, id)
	hideSecrets(&r)
	return r, err
}

// Node implements control.Backend.
func (b withoutSecrets) Node(ctx context.Context, name string) (control.Node, error) {
	n, err := b.Backend.Node(ctx, name)
	if n.Details != nil {
		hide(&n.Details.Append)
	}
	return n, err
}
