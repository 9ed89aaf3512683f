// A command line around the Object Store of nats.go, for the tests across clients.
//
//	goclient URL BUCKET COMMAND [ARGUMENT...]
//
// Bodies of objects travel on standard input and output, infos as ADR-20 JSON on standard output,
// errors on standard error with exit status 1.  Debian 12 packages nats.go 1.22, whose Object Store
// has no metadata map.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// The longest wait for one answer of the server.
const timeout = 20 * time.Second

type command struct {
	arguments int
	run       func(js nats.JetStreamContext, store nats.ObjectStore, args []string) error
}

var commands = map[string]command{
	"put":           {1, put},
	"get":           {1, get},
	"info":          {1, info},
	"list":          {0, list},
	"delete":        {1, remove},
	"addlink":       {2, addLink},
	"addbucketlink": {2, addBucketLink},
	"updatemeta":    {3, updateMeta},
	"watch-once":    {0, watchOnce},
	"seal":          {0, seal},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: goclient URL BUCKET COMMAND [ARGUMENT...]")
	}
	url, bucket, name, args := args[0], args[1], args[2], args[3:]
	connection, err := nats.Connect(url, nats.Timeout(timeout))
	if err != nil {
		return err
	}
	defer connection.Close()
	js, err := connection.JetStream(nats.MaxWait(timeout))
	if err != nil {
		return err
	}
	if name == "create" {
		_, err := js.CreateObjectStore(&nats.ObjectStoreConfig{Bucket: bucket})
		return err
	}
	chosen, known := commands[name]
	if !known || len(args) != chosen.arguments {
		return fmt.Errorf("no command %s with %d arguments", name, len(args))
	}
	store, err := js.ObjectStore(bucket)
	if err != nil {
		return err
	}
	return chosen.run(js, store, args)
}

func show(value interface{}) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}

// put NAME: stores standard input.
func put(_ nats.JetStreamContext, store nats.ObjectStore, args []string) error {
	stored, err := store.Put(&nats.ObjectMeta{Name: args[0]}, os.Stdin)
	if err != nil {
		return err
	}
	return show(stored)
}

// get NAME: writes the object to standard output, its links followed and its digest checked.
func get(_ nats.JetStreamContext, store nats.ObjectStore, args []string) error {
	body, err := store.Get(args[0])
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(os.Stdout, body); err != nil {
		return err
	}
	return body.Error()
}

func info(_ nats.JetStreamContext, store nats.ObjectStore, args []string) error {
	found, err := store.GetInfo(args[0])
	if err != nil {
		return err
	}
	return show(found)
}

func list(_ nats.JetStreamContext, store nats.ObjectStore, _ []string) error {
	found, err := store.List()
	if err == nats.ErrNoObjectsFound {
		return show([]*nats.ObjectInfo{})
	}
	if err != nil {
		return err
	}
	return show(found)
}

func remove(_ nats.JetStreamContext, store nats.ObjectStore, args []string) error {
	return store.Delete(args[0])
}

// addlink NAME TARGET
func addLink(_ nats.JetStreamContext, store nats.ObjectStore, args []string) error {
	target, err := store.GetInfo(args[1])
	if err != nil {
		return err
	}
	stored, err := store.AddLink(args[0], target)
	if err != nil {
		return err
	}
	return show(stored)
}

// addbucketlink NAME BUCKET
func addBucketLink(js nats.JetStreamContext, store nats.ObjectStore, args []string) error {
	target, err := js.ObjectStore(args[1])
	if err != nil {
		return err
	}
	stored, err := store.AddBucketLink(args[0], target)
	if err != nil {
		return err
	}
	return show(stored)
}

// updatemeta NAME NEW-NAME DESCRIPTION
func updateMeta(_ nats.JetStreamContext, store nats.ObjectStore, args []string) error {
	return store.UpdateMeta(args[0], &nats.ObjectMeta{Name: args[1], Description: args[2]})
}

// watch-once: prints "ready" when it watches, then the first change.
func watchOnce(_ nats.JetStreamContext, store nats.ObjectStore, _ []string) error {
	watcher, err := store.Watch()
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }()
	expired := time.After(timeout)
	ready := false
	for {
		select {
		case change := <-watcher.Updates():
			if change == nil {
				ready = true
				fmt.Println("ready")
			} else if ready {
				return show(change)
			}
		case <-expired:
			return fmt.Errorf("no change within %s", timeout)
		}
	}
}

func seal(_ nats.JetStreamContext, store nats.ObjectStore, _ []string) error {
	return store.Seal()
}
