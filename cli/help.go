package cli

import (
	"embed"
	"io"
	"maps"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/internal/phrase"
)

// topicFiles are topics that are long, or that something reads: the seed is one.
//
//go:embed topics
var topicFiles embed.FS

func topicFile(name string) string {
	text, err := topicFiles.ReadFile("topics/" + name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return string(text)
}

// topics are what "iotdm help TOPIC" explains: what several commands share.
var topics = map[string]string{
	"connection-strings": `A connection string says which hub, as whom, and with which key:

  HostName=hub.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey=...
  HostName=hub.azure-devices.net;DeviceId=pump-7;SharedAccessKey=...
  HostName=hub.azure-devices.net;DeviceId=pump-8;x509=true

The first is that of a shared access policy, for "iotdm service"; the others are
those of devices, for "iotdm device". A module has ModuleId=... too, a device
behind a gateway GatewayHostName=...; SharedAccessSignature=... can replace the
key. For a hub of your own they come from "iotdm hub connection-string";
for Azure from the portal or "az iot hub connection-string show".

Which hub a command uses, in this order:

   --connection-string TEXT, or --login TEXT
   IOTHUB_DEVICE_CONNECTION_STRING                              device commands
   IOTHUB_CONNECTION_STRING, IOTHUB_SERVICE_CONNECTION_STRING   service commands
   the hub on this machine, found through its data folder ("iotdm hub run")

Other users of the machine can see a key on a command line; --connection-string
takes @FILE too, or - for standard input. "iotdm service ... --hub-name HOST"
uses Entra ID instead of a key.
`,
	"mqtt": topicFile("mqtt.txt"),
	"http": topicFile("http.txt"),
	"seed": topicFile("seed.yaml"),
	"queries": `A query asks for twins, or for what jobs did, in IoT Hub's language:

   SELECT * FROM devices
   SELECT deviceId, properties.reported.rebootTime FROM devices
          WHERE tags.site = 'north' AND connectionState = 'Connected'
   SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site
   SELECT TOP 10 * FROM devices.modules WHERE moduleId = 'camera'
   SELECT * FROM devices.jobs WHERE jobId = 'job-1' AND status = 'failed'

What stands behind WHERE is a condition, as --where and --target-condition want.

   fields      deviceId, moduleId, status, connectionState, lastActivityTime,
               tags.X, properties.desired.X, properties.reported.X,
               capabilities.iotEdge, configurations.[[NAME]].status;
               odd names in [[ ]]
   compare     =  !=  <>  <  <=  >  >=  IN ['a', 'b']  NIN [...]
   combine     AND  OR  NOT  ( )  +  -  *  /  %
   functions   IS_DEFINED  STARTSWITH  ENDSWITH  ARRAY_CONTAINS  IS_NULL
               IS_BOOL  IS_NUMBER  IS_STRING  IS_OBJECT  IS_PRIMITIVE  IS_ARRAY
   aggregate   COUNT()  AVG(X)  SUM(X)  MIN(X)  MAX(X); GROUP BY X

A comparison with what a twin does not have is neither true nor false, so that
tags.site != 'north' leaves out twins without tags.site. There is no ORDER BY,
LIKE, BETWEEN or JOIN.

   iotdm service query "..."                     all pages, as a table
   iotdm service query "..." --explain           how the rows are found
   iotdm service query "..." --from twins.json   the same language on a file
`,
	"exit-statuses": `   0     done
   1     failed, such as when a device answered with a status other than 2xx
   2     wrong usage
   3     not found, or not online
   4     not authorized
   5     timed out
   130   interrupted by Ctrl-C or SIGTERM before all was done

What runs until it is stopped, such as a hub, a device or a watch, exits with 0
on Ctrl-C. What went wrong is one line on standard error, which begins with
"iotdm:".
`,
	"output": `Results go to standard output; progress, notes and errors go to standard error.

   (nothing)     text and tables for people
   -o json       JSON; what comes one after another, like changes, a line each
   -o yaml       the same as YAML
   -o table      a table, also where the text for people is another
   -o tsv        the table without headings, a tab between the columns
                 (on a terminal a table cuts what a line has no room for)
   --jq FILTER   what the jq filter makes of the JSON, strings without quotes

JSON, YAML and TSV stay as they are between versions. Colours and progress
bars appear only on a terminal; NO_COLOR turns colours off.
`,
	"environment": `   IOTHUB_DEVICE_CONNECTION_STRING    which hub and device, for device commands
   IOTHUB_CONNECTION_STRING,
   IOTHUB_SERVICE_CONNECTION_STRING   which hub, for service commands
   IOTDM_HUB_NAME                     the hub's host name, with Entra ID
   AZURE_TENANT_ID, AZURE_CLIENT_ID,
   AZURE_CLIENT_SECRET, ...           who calls, with Entra ID
   AZURE_TOKEN_CREDENTIALS            which: prod, dev ("az login"), or a name
                                      such as ManagedIdentityCredential
   IOTDM_DATA                         the local hub's data folder
   IOTDM_DEVICE_STATE                 where a device remembers what it was asked
   IOTDM_CA_FILE                      a CA to trust besides the system's
   IOTDM_HUB_...                      the flags of "iotdm hub run"
   HTTPS_PROXY, ALL_PROXY, NO_PROXY   the way to the hub
   NO_COLOR                           no colours
   VISUAL, EDITOR                     what "service twin edit" opens
`,
}

func topicNames() []string { return slices.Sorted(maps.Keys(topics)) }

// helpCommand explains topics. Help about a command is that command's --help,
// which "iotdm help COMMAND" is turned into (see command.Arrange).
func helpCommand(s output.Streams) *urfave.Command {
	return command.Leaf(&urfave.Command{
		Name:      "help",
		Usage:     "explain a command or a topic: " + strings.Join(topicNames(), ", "),
		ArgsUsage: "TOPIC",
		Description: "For example:\n" +
			"   iotdm help queries\n" +
			"   iotdm help service reboot",
		Action: func(ctx *urfave.Context) error {
			name := ctx.Args().First()
			text, ok := topics[name]
			if !ok {
				known := topicNames()
				for _, c := range ctx.App.Commands {
					known = append(known, c.Names()...)
				}
				return fail.Usagef("unknown command or topic %q%s; topics are %s", name, phrase.DidYouMean(name, known), strings.Join(topicNames(), ", "))
			}
			_, err := io.WriteString(s.Out, text)
			return err
		},
	})
}
