package bound_test

import (
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

// A connection of package net, as it is without any settings.
func Example() {
	c := bound.Conn{Options: bound.Options{
		KeepAlive: true,
		Idle:      15 * time.Second,
		Interval:  15 * time.Second,
		Count:     9,
	}}
	fmt.Println("idle:   ", c.Idle())
	fmt.Println("sending:", c.Sending(), "by", c.Sending().By)
	// Output:
	// idle:    150 s
	// sending: 15 min 25 s by tcp_retries2
}

// gRPC sets a user timeout on top of Go's keepalive: the nine probes become one.
func ExampleConn_Idle_userTimeout() {
	c := bound.Conn{Options: bound.Options{
		KeepAlive:   true,
		Idle:        15 * time.Second,
		Interval:    15 * time.Second,
		Count:       9,
		UserTimeout: 20 * time.Second,
	}}
	b := c.Idle()
	fmt.Printf("%v by %v, one lost probe is enough: %v\n", b, b.By, b.OneLoss)
	// Output: 30 s by TCP_USER_TIMEOUT, one lost probe is enough: true
}

// A socket that never asked for keepalive, and one that only asked for it.
func ExampleBound_Never() {
	var c bound.Conn
	fmt.Println(c.Idle(), c.Idle().Never())
	c.KeepAlive = true
	fmt.Println(c.Idle())
	// Output:
	// never true
	// 2 h 11 min
}

// Fewer retransmissions bound a sender, at the price of shorter outages that
// its connections outlive.
func ExampleConn_Sending() {
	c := bound.Conn{RTO: 204 * time.Millisecond}
	for _, c.Retries2 = range []int{5, 8, 15} {
		fmt.Println(c.Retries2, c.Sending())
	}
	// Output:
	// 5 13 s
	// 8 104 s
	// 15 15 min 29 s
}

// The clock of the kernel decides how late its timers are.
func ExampleBound_latest() {
	c := bound.Conn{RTO: 204 * time.Millisecond, Tick: time.Second / 250}
	b := c.Sending()
	fmt.Println("by the rules:", b.After.Round(time.Second))
	fmt.Println("at the latest:", b.Latest.Round(time.Second))
	// Output:
	// by the rules: 15m29s
	// at the latest: 15m40s
}
