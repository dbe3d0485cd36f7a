// Package crash simulates power cuts: of a server process (kill -9), and of the disk below it, which then loses
// writes that were not flushed. It compares the result with an exact model: every acknowledged change is there,
// and none is incomplete. The package has only tests.
//
// Each worker changes its own directory, one call after another, and records the state of the directory after
// each. After a crash the directory must be in one of the states from the last acknowledged call to the last
// call that began. Only the bytes of a write that was not acknowledged may be old or new.
//
// DIM_CRASH_ROUNDS sets the number of power cuts in each test. DIM_CRASH_MUTANTS=1 runs the tests on code with
// deliberate faults, which they must find.
package crash
