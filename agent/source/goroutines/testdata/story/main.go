// Command story is a manager that drives a host over SSH, and the host. The host
// takes the connection, authenticates, answers every keepalive, and never
// confirms the channel that the manager opens: NewSession blocks for ever.
package main

import (
	"bufio"
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/crypto/ssh"
)

func main() {
	if os.Args[1] == "host" {
		host()
		return
	}
	for _, address := range os.Args[2:] {
		go reconcile(address)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("end") {
		if in.Text() == "gc" {
			runtime.GC()
		}
	}
}

func reconcile(address string) {
	client, err := ssh.Dial("tcp", address, &ssh.ClientConfig{User: "manager", HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second})
	if err != nil {
		panic(err)
	}
	var id int
	buf := make([]byte, 64)
	fmt.Sscanf(string(buf[:runtime.Stack(buf, false)]), "goroutine %d", &id)
	go keepalive(client)
	fmt.Printf("%d\n%s\nend\n", id, address)
	session, err := client.NewSession() // for ever
	fmt.Println("returned", session, err)
}

// keepalive is answered all the time: the connection is never idle for long, and
// its peer is alive.
func keepalive(client *ssh.Client) {
	for range time.Tick(200 * time.Millisecond) {
		if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			panic(err)
		}
	}
}

func host() {
	_, key, _ := ed25519.GenerateKey(nil)
	signer, _ := ssh.NewSignerFromKey(key)
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\nend\n", listener.Addr())
	go func() {
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			_, _, requests, err := ssh.NewServerConn(conn, config)
			if err == nil {
				ssh.DiscardRequests(requests)
			}
		}()
	}
}
