package rules

// pending are packages that do not keep a rule yet: package → rule → what is left to do. The table only shrinks. When a package keeps
// a rule, its line is deleted; the test of the rule fails as long as it stands there. A package that moves takes its lines along.
//
// Empty braces of a package may stay, so that two who delete lines side by side get no conflict.
var pending = map[string]map[string]string{
	"docs/concepts.md": {
		"documents": "21 lines",
	},
	"docs/formats/layer.md": {
		"documents": "39 lines",
	},
	"docs/guide/durability.md": {
		"documents": "13 lines",
	},
	"docs/guide/masters.md": {
		"documents": "26 lines",
	},
	"docs/guide/metrics.md": {
		"documents": "3 lines",
	},
	"docs/guide/node-state.md": {
		"documents": "36 lines",
	},
	"docs/guide/trouble.md": {
		"documents": "3 lines",
	},
	"docs/guide/watch.md": {
		"documents": "19 lines",
	},
	"docs/quickstart.md": {
		"documents": "17 lines",
	},
	"docs/reference/kernel-parameters.md": {
		"documents": "19 lines",
	},
	"docs/tour.md": {
		"documents": "27 lines",
	},
	"internal/capture":         {},
	"internal/capture/archive": {},
	"internal/capture/draft":   {},
	"internal/capture/oci":     {},
	"internal/capture/remote":  {},
	"internal/daemon": {
		"columns": "tests",
	},
	"internal/image": {
		"surface": "37 exported names",
	},
	"internal/rules": {
		"columns": "45 lines",
	},
	"internal/watch": {},
}
