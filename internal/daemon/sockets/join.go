package sockets

import (
	"errors"
	"net"
	"sync"
)

// multiListener accepts the connections of several listeners. An oncrpc.Server serves one listener and has one set of
// bounds for all its clients.
type multiListener struct {
	list  []net.Listener
	conns chan net.Conn
	errs  chan error
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

// Join returns a listener that accepts the connections of all listeners in list, at least one. Its Close closes them.
func Join(list []net.Listener) net.Listener {
	m := &multiListener{list: list, conns: make(chan net.Conn), errs: make(chan error), done: make(chan struct{})}
	for _, ln := range list {
		m.wg.Go(func() { m.accept(ln) })
	}
	return m
}

func (m *multiListener) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			select {
			case m.errs <- err:
			case <-m.done:
				return
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // after a transient error, such as too many open files, the caller of Accept has waited a little
		}
		select {
		case m.conns <- c:
		case <-m.done:
			_ = c.Close()
			return
		}
	}
}

// Accept implements net.Listener.
func (m *multiListener) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case err := <-m.errs:
		return nil, err
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (m *multiListener) Close() error {
	var errs []error
	m.once.Do(func() {
		close(m.done)
		for _, ln := range m.list {
			errs = append(errs, ln.Close())
		}
		m.wg.Wait()
	})
	return errors.Join(errs...)
}

// Addr implements net.Listener with the first one's address.
func (m *multiListener) Addr() net.Addr { return m.list[0].Addr() }
