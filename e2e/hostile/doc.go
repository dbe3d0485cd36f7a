// Package hostile is a node that means harm, against a real replica behind the real server over TCP: it sends
// random sequences of calls while the replica is switched, and tries to reach what is outside of its replica.
// It is all tests.
package hostile
