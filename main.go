// Command iotdm runs an IoT Hub device, a service client and a hub.
package main

import (
	"os"

	"github.com/iotdm/iotdm/cli"
)

func main() { os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
