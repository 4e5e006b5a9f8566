// Command waits has goroutines that wait in many ways, others that are busy, and
// tells about them what is asked on standard input: "stacks", "gc", "count".
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	never  = make(chan int)
	hashes atomic.Int64
)

type waiter interface{ wait() }

type patient struct{ depth int }

// wait has a value receiver and is called through an interface and a pointer: a
// wrapper that the compiler made lies between.
func (p patient) wait() {
	if p.depth > 0 {
		patient{p.depth - 1}.wait()
		return
	}
	receive[string]("x")
}

func receive[T any](T) { <-never }

// pingPong waits nearly all the time, but never for long.
func pingPong() {
	ping, pong := make(chan int), make(chan int)
	go func() {
		for v := range ping {
			time.Sleep(time.Millisecond)
			pong <- v
		}
	}()
	for {
		ping <- 1
		<-pong
	}
}

// hung calls a server that accepts and never answers.
func hung(address string) {
	answer, err := http.Get("http://" + address + "/")
	fmt.Println("answered", answer, err)
}

func main() {
	crowd, _ := strconv.Atoi(os.Args[1])
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var (
		mutex sync.Mutex
		group sync.WaitGroup
		cond         = sync.NewCond(new(sync.Mutex))
		w     waiter = &patient{70}
	)
	mutex.Lock()
	group.Add(1)
	go hung(server.Addr().String())
	go w.wait()
	go func() { mutex.Lock() }()
	go func() { group.Wait() }()
	go func() { cond.L.Lock(); cond.Wait() }()
	go func() { select {} }()
	go func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		select {
		case <-never:
		case <-ctx.Done():
		}
	}()
	go func() { never2 := make(chan int); never2 <- 1 }()
	go func() { time.Sleep(time.Hour) }()
	for range make([]struct{}, crowd) {
		go receive(1)
	}
	for range make([]struct{}, 8) {
		go pingPong()
	}
	go func() {
		if len(os.Args) < 3 {
			return
		}
		var block [4096]byte
		for {
			sha256.Sum256(block[:])
			hashes.Add(1)
		}
	}()
	time.Sleep(100 * time.Millisecond)
	fmt.Printf("ready %s\nend\n", server.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("end") {
		switch in.Text() {
		case "stacks":
			buf := make([]byte, 64<<20)
			fmt.Println(strings.TrimSpace(string(buf[:runtime.Stack(buf, true)])))
		case "gc":
			runtime.GC()
		case "count":
			fmt.Println(hashes.Load())
		}
	}
	runtime.KeepAlive(server)
}
