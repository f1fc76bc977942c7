package e2e

import (
	"flag"
	"os"

	"github.com/nats-io/nats-server/v2/server"
)

// serveNATS is what the program nats-server does.
func serveNATS() {
	flags := flag.NewFlagSet("nats-server", flag.ExitOnError)
	opt, err := server.ConfigureOptions(flags, os.Args[1:], server.PrintServerAndExit, flags.Usage, server.PrintTLSHelpAndDie)
	if err != nil {
		server.PrintAndDie(err.Error())
	}
	s, err := server.NewServer(opt)
	if err != nil {
		server.PrintAndDie(err.Error())
	}
	s.ConfigureLogger()
	if err := server.Run(s); err != nil {
		server.PrintAndDie(err.Error())
	}
	s.WaitForShutdown()
}
