package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// monitoring has what administrators copy: alerts and a dashboard.
const monitoring = "../../examples/monitoring/"

// expression is a query of the dashboard.
type expression struct {
	Expr string `json:"expr"`
}

// dashboard returns the queries of the dashboard, with values for the variables of Grafana.
func dashboard(t *testing.T) (list []string) {
	t.Helper()
	var d struct {
		Panels []struct {
			Title   string       `json:"title"`
			Targets []expression `json:"targets"`
		} `json:"panels"`
	}
	testkit.Must(t, json.Unmarshal(testkit.Value(os.ReadFile(monitoring+"grafana.json"))(t), &d))
	values := strings.NewReplacer("$__rate_interval", "1m", "$cluster", ".*", "$server", ".*")
	for _, p := range d.Panels {
		if p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q has %d queries", p.Title, len(p.Targets))
		}
		for _, e := range p.Targets {
			list = append(list, values.Replace(e.Expr))
		}
	}
	return list
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPrometheusTakesTheAlertsAndTheDashboard(t *testing.T) {
	testkit.NeedProgram(t, "promtool")
	promtool(t, "check", "config", monitoring+"prometheus.yml")
	promtool(t, "test", "rules", monitoring+"dim.rules.test.yml")
	// The queries of the dashboard become rules, which promtool checks.
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for i, expr := range dashboard(t) {
		fmt.Fprintf(&rules, "      - record: panel:%d\n        expr: %q\n", i, expr)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	testkit.Must(t, os.WriteFile(file, []byte(rules.String()), 0o644))
	promtool(t, "check", "rules", file)
}

func TestAlertsAndDashboardUseWhatIsExported(t *testing.T) {
	_, exported := get(t, "127.0.0.1:5000")
	page := string(testkit.Value(os.ReadFile("../../docs/guide/metrics.md"))(t))
	rules := string(testkit.Value(os.ReadFile(monitoring + "dim.rules.yml"))(t))
	exports := func(name string) bool {
		return regexp.MustCompile(`(?m)^` + name + `[{ ]`).MatchString(exported)
	}
	if exports("dim_nod") {
		t.Error("the beginning of a name is taken for a name")
	}
	series := regexp.MustCompile(`\bdim_[a-z_]+`)
	for _, text := range append(dashboard(t), rules) {
		for _, name := range series.FindAllString(text, -1) {
			if !exports(name) {
				t.Errorf("no server exports %s", name)
			}
			family := strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count")
			if !strings.Contains(page, "`"+family+"`") {
				t.Errorf("docs/guide/metrics.md does not explain %s", family)
			}
		}
	}
}

// Each alert leads to a paragraph that tells what to do.
func TestEachAlertHasItsParagraph(t *testing.T) {
	rules := string(testkit.Value(os.ReadFile(monitoring + "dim.rules.yml"))(t))
	page := string(testkit.Value(os.ReadFile("../../docs/guide/trouble.md"))(t))
	anchors := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		anchors[strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	alerts := strings.Count(rules, "- alert:")
	links := regexp.MustCompile(`runbook: docs/guide/trouble\.md#(\S+)`).FindAllStringSubmatch(rules, -1)
	if alerts == 0 || len(links) != alerts {
		t.Errorf("%d alerts, %d links", alerts, len(links))
	}
	for _, link := range links {
		if !anchors[link[1]] {
			t.Errorf("docs/guide/trouble.md has no paragraph %s", link[1])
		}
	}
}
