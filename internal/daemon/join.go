package daemon

import (
	"errors"
	"net"
	"sync"
)

// joined is several listeners as one: an oncrpc.Server serves one, and has one set of bounds for all its clients.
type joined struct {
	list  []net.Listener
	conns chan net.Conn
	errs  chan error
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

func joinListeners(list []net.Listener) net.Listener {
	j := &joined{list: list, conns: make(chan net.Conn), errs: make(chan error), done: make(chan struct{})}
	for _, ln := range list {
		j.wg.Go(func() { j.accept(ln) })
	}
	return j
}

func (j *joined) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			select {
			case j.errs <- err:
			case <-j.done:
				return
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // with what passes, such as too many open files, whoever accepts has waited a little
		}
		select {
		case j.conns <- c:
		case <-j.done:
			_ = c.Close()
			return
		}
	}
}

// Accept implements net.Listener.
func (j *joined) Accept() (net.Conn, error) {
	select {
	case c := <-j.conns:
		return c, nil
	case err := <-j.errs:
		return nil, err
	case <-j.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (j *joined) Close() error {
	var errs []error
	j.once.Do(func() {
		close(j.done)
		for _, ln := range j.list {
			errs = append(errs, ln.Close())
		}
		j.wg.Wait()
	})
	return errors.Join(errs...)
}

// Addr implements net.Listener with the first one's address.
func (j *joined) Addr() net.Addr { return j.list[0].Addr() }
