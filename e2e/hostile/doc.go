// Package hostile tests the server against hostile machines. The package has only tests.
//
//   - A node sends random sequences of calls over TCP while its replica is switched, and tries to reach files outside
//     of it.
//
//   - Nodes and strangers attack all services of a server process at the same time, while other nodes work
//     (TestAServerUnderAttackServesItsNodes). The attack lasts some seconds, or DIM_HOSTILE_TIME. Before and after it,
//     the same attackers attack a server without nodes at work: that is the control.
//
//     DIM_HOSTILE_TIME=10m go test -count=1 -timeout 30m -v -run UnderAttack ./e2e/hostile
package hostile
