// Package e2e holds the whole-system tests: a real server process, real kernels as its clients. User Mode Linux
// guests mount a replica and do file operations while the server is killed, switched and filled up; QEMU guests
// boot from firmware to a login.
//
// They need root and the packages of `dist/deps lab`, and run when DIM_E2E is set: `make e2e`. With
// DIM_LAB_MASTER=DIR a copy of that directory, which `lab master DIR` makes, is the master instead of a fresh
// installation. With DIM_LONG a thousand switches stand where some are else: `make long`.
package e2e
