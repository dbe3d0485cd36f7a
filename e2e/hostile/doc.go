// Package hostile tests the server against a hostile node, over TCP and with a real replica. The node sends
// random sequences of calls while its replica is switched, and tries to reach files outside of it. The package
// has only tests.
package hostile
