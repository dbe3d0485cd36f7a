package oncrpc

import (
	"sync"
	"sync/atomic"
)

// workers are goroutines that run slow calls. They are reused, because a new goroutine would have to grow its stack for
// each call.
type workers struct {
	next    chan work // unbuffered: a worker that receives is idle
	idle    atomic.Int32
	running sync.WaitGroup
}

// work is one slow call.
type work struct {
	conn *conn
	rec  []byte
	own  *buffer // holds rec
}

// idleWorkers is the number of workers that are kept while they are idle.
const idleWorkers = 64

// run starts w on an idle worker or a new one. It does not block.
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

// end waits for the workers. All work must be done, and run must not be called again.
func (ws *workers) end() {
	close(ws.next)
	ws.running.Wait()
}
