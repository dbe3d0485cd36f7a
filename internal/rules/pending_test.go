package rules

// pending are packages that do not keep a rule yet: package → rule → what is left to do. The table only
// shrinks. When a package keeps a rule, its line is deleted; the test of the rule fails as long as it stands
// there. A package that moves takes its lines along.
//
// Empty braces of a package may stay, so that two who delete lines side by side get no conflict.
var pending = map[string]map[string]string{}
