package oncrpc

import (
	"sync"
	"sync/atomic"
)

// workers are goroutines that run slow calls, each one after the other: a new goroutine would have to grow its stack for each.
type workers struct {
	next    chan work // unbuffered: who receives is idle
	idle    atomic.Int32
	running sync.WaitGroup
}

// work is one slow call.
type work struct {
	conn *conn
	rec  []byte
	own  *buffer // holds rec
}

// idleWorkers is how many workers wait for work at most.
const idleWorkers = 64

// run gives w to an idle worker, or to a new one. It does not wait.
func (ws *workers) run(w work) {
	select {
	case ws.next <- w:
	default:
		ws.running.Go(func() { ws.serve(w) })
	}
}

func (ws *workers) serve(w work) {
	for more := true; more; {
		w.conn.runSlow(w.rec, w.own)
		w = work{} // an idle worker holds no buffer
		if ws.idle.Add(1) > idleWorkers {
			ws.idle.Add(-1)
			return
		}
		w, more = <-ws.next
		ws.idle.Add(-1)
	}
}

// end waits for the workers. Nothing may run any more, nor later.
func (ws *workers) end() {
	close(ws.next)
	ws.running.Wait()
}
