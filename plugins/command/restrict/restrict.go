// Package restrict limits the damage that the engine's HTTP server and a foreign config
// can do. The engine itself serves an API that creates streams, and has components that
// run programs: together they let a client, or a web page that a user opens, run any
// program. Here the API is off, needs a credential when it is on, and the components
// need a flag; the server rejects unknown host names and foreign origins.
package restrict

import (
	"errors"
	"slices"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"
)

// Address is the default address of the engine's HTTP server. The engine's own default
// is all interfaces.
const Address = "127.0.0.1:4195"

const (
	flagCommands   = "allow-commands"
	flagStreamsAPI = "streams-api"
	flagHost       = "http-host"
)

// Flags returns the flags of the commands that run pipelines.
func Flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: flagCommands, Usage: "Allow the components command and subprocess, which run programs."},
		&cli.BoolFlag{Name: flagStreamsAPI, Usage: "Serve the HTTP API that shows and changes streams, in streams mode. It needs http.basic_auth in the root config."},
		&cli.StringSliceFlag{Name: flagHost, Usage: "Accept requests to the HTTP server by this host name, besides localhost and IP addresses. Can be repeated."},
	}
}

// Guard holds what the flags of the running command allow.
type Guard struct {
	streamsAPI bool
	hosts      []string
}

// Prepare reads the flags. It must be called after they are parsed and before the
// command runs.
func (g *Guard) Prepare(c *cli.Context) error {
	g.hosts = c.StringSlice(flagHost)
	if c.Command.Name != "streams" {
		return nil
	}
	g.streamsAPI = c.Bool(flagStreamsAPI)
	if g.streamsAPI {
		return nil
	}
	return c.Set("no-api", "true")
}

// Check returns an error for a config in which the HTTP server shows or changes
// configuration without a credential, and puts a guard in front of the server: it rejects
// unknown host names and foreign origins, and never returns the config of a stream.
func (g *Guard) Check(conf *service.ParsedConfig) error {
	enabled, err := conf.FieldBool("http", "enabled")
	if err != nil || !enabled {
		return err
	}
	debug, err := conf.FieldBool("http", "debug_endpoints")
	if err != nil {
		return err
	}
	authenticated, err := conf.FieldBool("http", "basic_auth", "enabled")
	if err != nil {
		return err
	}
	if authenticated {
		return guardServer(conf, g.hosts)
	}
	const instead = "; write http: { basic_auth: { enabled: true, username: admin, password_hash: \"...\" } }, see the documentation of the http field"
	switch {
	case g.streamsAPI:
		return errors.New("--" + flagStreamsAPI + " needs http.basic_auth, because the API shows secrets and creates streams" + instead)
	case debug:
		return errors.New("http.debug_endpoints needs http.basic_auth, because the endpoints show secrets" + instead)
	}
	return guardServer(conf, g.hosts)
}

// programs are the components that run programs.
var programs = []string{"command", "subprocess"}

// Environment returns the components that a process started with args may use.
func Environment(all *service.Environment, args []string) (*service.Environment, error) {
	if allowsCommands(args) {
		return all, nil
	}
	env := all.Without(programs...)
	anything := func() *service.ConfigSpec {
		return service.NewConfigSpec().
			Summary("Runs a program. It needs the flag --" + flagCommands + ".").
			Field(service.NewAnyField(""))
	}
	refused := func(kind, name string) error {
		return errors.New("the " + kind + " " + name + " runs a program, which is not allowed; start with --" + flagCommands + " to allow it")
	}
	var errs []error
	all.WalkInputs(func(name string, _ *service.ConfigView) {
		if slices.Contains(programs, name) {
			errs = append(errs, env.RegisterInput(name, anything(), func(*service.ParsedConfig, *service.Resources) (service.Input, error) {
				return nil, refused("input", name)
			}))
		}
	})
	all.WalkProcessors(func(name string, _ *service.ConfigView) {
		if slices.Contains(programs, name) {
			errs = append(errs, env.RegisterProcessor(name, anything(), func(*service.ParsedConfig, *service.Resources) (service.Processor, error) {
				return nil, refused("processor", name)
			}))
		}
	})
	all.WalkOutputs(func(name string, _ *service.ConfigView) {
		if slices.Contains(programs, name) {
			errs = append(errs, env.RegisterOutput(name, anything(), func(*service.ParsedConfig, *service.Resources) (service.Output, int, error) {
				return nil, 0, refused("output", name)
			}))
		}
	})
	return env, errors.Join(errs...)
}

// allowsCommands reports whether the flag is among the arguments. The components are
// chosen before the engine parses its flags.
func allowsCommands(args []string) bool {
	for _, arg := range args {
		if arg == "--" {
			return false
		}
		name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && name == flagCommands && value != "false" {
			return true
		}
	}
	return false
}
