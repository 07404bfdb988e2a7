// Package deleteprofiles implements the delete-profiles command, which deletes a profile
// store from Redis, for example the old one after a rebuild.
package deleteprofiles

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/store/redis"
)

const (
	flagURL      = "url"
	flagKind     = "kind"
	flagMaster   = "master"
	flagUsername = "username"
	flagPassword = "password"
	flagPrefix   = "prefix"
	flagYes      = "yes"
)

// Command returns the command of the program named binary.
func Command(binary string) *cli.Command {
	return &cli.Command{
		Name:  "delete-profiles",
		Usage: "Delete all profiles with a prefix from Redis",
		Description: fmt.Sprintf(`
Counts the keys of the profile store with the given prefix, and deletes them with
--yes. It deletes only keys of that store. Keys of other prefixes stay, also those
that begin with the same letters, and so do foreign keys. First stop every process
that uses the prefix, or it writes its profiles again.

  %[1]s delete-profiles --url redis://127.0.0.1:6379 --prefix profiles
  %[1]s delete-profiles --url redis://127.0.0.1:6379 --prefix profiles --yes

An interrupted deletion can be repeated. The ACL user needs +get +scan +unlink +del,
and +cluster|slots, +cluster|shards and +command in a cluster.`, binary)[1:],
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagURL, EnvVars: []string{"REDIS_URL"}, Required: true, Usage: "The address of Redis, as `URL` in the field url of a profiles resource."},
			&cli.StringFlag{Name: flagKind, Value: string(redis.Simple), Usage: "The kind of Redis: simple, cluster or failover."},
			&cli.StringFlag{Name: flagMaster, Usage: "The name of the primary that the Sentinels monitor, for the kind failover."},
			&cli.StringFlag{Name: flagUsername, Usage: "The ACL user; overrides that of the URL."},
			&cli.StringFlag{Name: flagPassword, EnvVars: []string{"REDIS_PASSWORD"}, Usage: "The password; overrides that of the URL. Prefer the environment variable: other users of the machine can read arguments."},
			&cli.StringFlag{Name: flagPrefix, Required: true, Usage: "The prefix of the store to delete."},
			&cli.BoolFlag{Name: flagYes, Usage: "Delete the keys. Without it the command only counts them."},
		},
		Action: func(c *cli.Context) error {
			n, err := redis.DeleteAll(c.Context, redis.Options{
				URL: c.String(flagURL), Mode: redis.Mode(c.String(flagKind)), MasterName: c.String(flagMaster),
				Username: c.String(flagUsername), Password: c.String(flagPassword), Prefix: c.String(flagPrefix),
			}, !c.Bool(flagYes))
			if err != nil {
				return cli.Exit(err.Error(), 1)
			}
			if !c.Bool(flagYes) {
				_, err = fmt.Fprintf(c.App.Writer, "The store at prefix %q has %d keys. Repeat the command with --%s to delete them.\n", c.String(flagPrefix), n, flagYes)
				return err
			}
			_, err = fmt.Fprintf(c.App.Writer, "Deleted %d keys of the store at prefix %q.\n", n, c.String(flagPrefix))
			return err
		},
	}
}
