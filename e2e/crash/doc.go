// Package crash takes the power away: from a server process (kill -9) and from the disk below it (everything
// that was not flushed is gone, but for some of it). Then it compares what is there with an exact model: every
// acknowledged change is there, none is half done. It is all tests.
//
// Each worker changes a directory of its own, one call after another, and keeps what its directory showed after
// each. After a crash the directory must show one of the states from the last acknowledged one to the last
// begun one; only the bytes of a write that was not acknowledged may be old or new.
//
// DIM_CRASH_ROUNDS sets how often the power goes in each test; DIM_CRASH_TEETH=1 breaks the code on purpose, to
// see that it is found.
package crash
