// Package e2e holds the whole-system tests: a real server process, real kernels as its clients. User Mode Linux
// guests mount a replica and do file operations while the server is killed, its disk fills up and the replica
// is switched. QEMU guests boot from firmware to a login.
//
// They need root and the packages of `dist/deps lab`, and run when DIM_E2E is set: `make e2e`. DIM_LAB_MASTER
// names an installation that `lab master DIR` made; a copy of it is the master instead of a fresh installation.
// With DIM_LONG the tests under load make a thousand switches instead of a few: `make long`.
package e2e
