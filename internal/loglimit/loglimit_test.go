package loglimit

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func limited(all int) (*slog.Logger, *bytes.Buffer) {
	var out bytes.Buffer
	return slog.New(New(slog.NewTextHandler(&out, nil), func() int { return all })), &out
}

func TestLinesOfOneCauseAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := limited(1000)
		for port := range 500 {
			log.Warn("refused", "client", fmt.Sprintf("10.0.0.9:%d", port+1024))
			log.With("node", "n01").Warn("refused", "error", port)
		}
		log.Warn("refused", "client", "10.0.0.8:700")
		log.Info("accepted", "client", "10.0.0.9:1024")
		if got := out.String(); strings.Count(got, "\n") != 22 || strings.Count(got, "omitted=980") != 1 {
			t.Errorf("in the first minute:\n%s", got)
		}
		log.Warn("refused", "client", "10.0.0.9:98")
		out.Reset()
		time.Sleep(interval)
		log.Warn("refused", "client", "10.0.0.9:99")
		log.Warn("refused", "client", "10.0.0.9:99")
		if got := out.String(); strings.Count(got, "\n") != 2 || strings.Count(got, "omitted=1") != 1 {
			t.Errorf("a minute later: %s", got)
		}
	})
}

func TestLinesOfOneMessageAreLimited(t *testing.T) {
	log, out := limited(50)
	for i := range 10_000 {
		log.Warn("refused", "mac", fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&0xff)) // forged
	}
	if n := strings.Count(out.String(), "\n"); n != 50 {
		t.Errorf("%d lines", n)
	}
}

func TestAHandlerCountsWithThoseMadeOfIt(t *testing.T) {
	log, out := limited(1000)
	for range 20 {
		log.WithGroup("g").Warn("same")
		log.With("count", 1).Warn("same")
	}
	if n := strings.Count(out.String(), "\n"); n != each {
		t.Errorf("%d lines", n)
	}
}
