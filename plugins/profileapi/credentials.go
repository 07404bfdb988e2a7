package profileapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"golang.org/x/time/rate"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/follow"
	"github.com/connect-personalize/connect-personalize/plugins/engine/signedurl"
)

const (
	fieldTokens            = "tokens"
	fieldTokenName         = "name"
	fieldTokenSHA256       = "sha256"
	fieldTokenScopes       = "scopes"
	fieldSigningKeys       = "signing_keys"
	fieldKeyName           = "name"
	fieldKeySecret         = "secret"
	fieldKeyFields         = "fields"
	fieldPerSecond         = "requests_per_second"
	fieldBurst             = "burst"
	fieldProfilesPerSecond = "profiles_per_second"
	fieldTokensFile        = "tokens_file"
	scopesExplanation      = "list any of read, write, content, erase, export, segments"
)

func limitFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewFloatField(fieldPerSecond).
			Description("Maximum rate, in requests a second; zero for no limit. Requests above it get status 429 with `Retry-After`. Each process counts separately.").
			Default(0.0).Example(50).
			LintRule(`root = if this.number().catch(0) < 0 { "must be zero or more, such as 50" }`),
		service.NewIntField(fieldBurst).
			Description("Maximum number of requests in a burst above the rate; zero for the requests of one second.").
			Default(0).Example(100).
			LintRule(`root = if this.number().catch(0) < 0 { "must be zero or more, such as 100" }`),
		service.NewFloatField(fieldProfilesPerSecond).
			Description("Maximum number of customers read per second; zero for no limit. A batch counts every customer in it, a page of a segment its `limit`. Requests above it get status 429 with `Retry-After`. It bounds how fast a stolen token can copy all profiles.").
			Default(0.0).Example(1000).Advanced().
			LintRule(`root = if this.number().catch(0) < 0 { "must be zero or more, such as 1000" }`),
	}
}

// credentialFields returns the fields of credentials in the config and in tokens_file.
func credentialFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewObjectListField(fieldTokens,
			append([]*service.ConfigField{
				service.NewStringField(fieldTokenName).
					Description("Name of the token's owner, used in the audit of erasures and in error messages.").
					Example("braze"),
				service.NewStringField(fieldTokenSHA256).
					Description("SHA-256 of the token, in hexadecimal. Create a token with `openssl rand -hex 32`, and its hash with `printf %s \"$TOKEN\" | sha256sum`.").
					Secret().
					Example("${BRAZE_TOKEN_SHA256}").
					LintRule(`root = if !this.string().re_match("^[0-9a-fA-F]{64}$") { "write the SHA-256 of the token as 64 hexadecimal digits, not the token: printf %s \"$TOKEN\" | sha256sum" }`),
				service.NewStringListField(fieldTokenScopes).
					Description("Permissions of the token: `read` profiles by id, `write` traits, fetch rendered `content`, `erase` customers, `export` all stored data of a customer, list the customers of `segments`.").
					Default([]any{"read"}).
					Example([]string{"read", "write"}).
					LintRule(`root = if this.type() == "array" && (this.length() == 0 || this.any(s -> ![ "read", "write", "content", "erase", "export", "segments" ].contains(s))) { "` + scopesExplanation + `" }`),
			}, limitFields()...)...,
		).
			Description("Bearer tokens of callers. If there is at least one, every request under `/api` requires a token.").
			Default([]any{}).
			Example([]any{map[string]any{
				fieldTokenName: "braze", fieldTokenSHA256: "${BRAZE_TOKEN_SHA256}", fieldTokenScopes: []any{"read", "content"}, fieldPerSecond: 200,
			}}),
		service.NewObjectListField(fieldSigningKeys,
			append([]*service.ConfigField{
				service.NewStringField(fieldKeyName).
					Description("Name of the key in a signed URL.").
					Example("newsletter").
					LintRule(`root = if !this.string().re_match("^[A-Za-z0-9_.-]+$") { "write a name of letters, digits, dots and dashes, such as newsletter-2026" }`),
				service.NewStringField(fieldKeySecret).
					Description("Secret of the signature, at least 32 characters: `openssl rand -hex 32`.").
					Secret().
					Example("${NEWSLETTER_SIGNING_SECRET}").
					LintRule(`root = if this.string().length() < 32 { "write 32 characters or more: openssl rand -hex 32" }`),
				service.NewStringListField(fieldKeyFields).
					Description("Fields of a profile that a signed URL may read: `traits`, `features`, `traits.NAME` or `features.NAME`. Rendered content is always allowed.").
					Default([]any{}).
					Example([]string{"traits.firstName", "features.orders_30d"}),
			}, limitFields()...)...,
		).
			Description("Keys of signed URLs. To rotate a key, add a second one, sign with it, and remove the first when its last URL has expired.").
			Default([]any{}).
			Example([]any{map[string]any{fieldKeyName: "newsletter-2026", fieldKeySecret: "${NEWSLETTER_SIGNING_SECRET}"}}).
			Advanced(),
	}
}

// fields is the part of service.ParsedConfig that parseCredentials needs.
type fields interface {
	FieldObjectList(path ...string) ([]*service.ParsedConfig, error)
}

func parseCredentials(p fields) (*credentials, error) {
	c := &credentials{}
	list, err := p.FieldObjectList(fieldTokens)
	if err != nil {
		return nil, err
	}
	for _, item := range list {
		name, err := item.FieldString(fieldTokenName)
		if err != nil {
			return nil, err
		}
		t, err := parseToken(item)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", fieldTokens, name, err)
		}
		t.name = name
		c.tokens = append(c.tokens, t)
	}
	if list, err = p.FieldObjectList(fieldSigningKeys); err != nil {
		return nil, err
	}
	for _, item := range list {
		k, err := parseSigningKey(item)
		if err != nil {
			return nil, err
		}
		c.keys = append(c.keys, k)
	}
	return c, c.check()
}

// check reports credentials that cannot be distinguished.
func (c *credentials) check() error {
	holders := map[[sha256.Size]byte]string{}
	for i := range c.tokens {
		t := &c.tokens[i]
		if other, ok := holders[t.hash]; ok {
			return fmt.Errorf("%s: %q and %q have the same token: use a different one for each", fieldTokens, other, t.name)
		}
		holders[t.hash] = t.name
	}
	names := map[string]bool{}
	for i := range c.keys {
		if names[c.keys[i].name] {
			return fmt.Errorf("%s: two keys have the name %q", fieldSigningKeys, c.keys[i].name)
		}
		names[c.keys[i].name] = true
	}
	return nil
}

func parseToken(p *service.ParsedConfig) (t token, err error) {
	text, err := p.FieldString(fieldTokenSHA256)
	if err != nil {
		return t, err
	}
	hash, err := hex.DecodeString(text)
	if err != nil || len(hash) != sha256.Size {
		return t, fmt.Errorf("%s is not 64 hexadecimal digits: write the SHA-256 of the token, not the token", fieldTokenSHA256)
	}
	t.hash = [sha256.Size]byte(hash)
	names, err := p.FieldStringList(fieldTokenScopes)
	if err != nil {
		return t, err
	}
	for _, name := range names {
		s, ok := scopeNames[name]
		if !ok {
			return t, fmt.Errorf("%s has an unknown scope: %s", fieldTokenScopes, scopesExplanation)
		}
		t.scopes |= s
	}
	if t.scopes == 0 {
		return t, fmt.Errorf("%s is empty: %s", fieldTokenScopes, scopesExplanation)
	}
	t.limits, err = parseLimits(p)
	return t, err
}

func parseSigningKey(p *service.ParsedConfig) (k signingKey, err error) {
	if k.name, err = p.FieldString(fieldKeyName); err != nil {
		return k, err
	}
	secret, err := p.FieldString(fieldKeySecret)
	if err != nil {
		return k, err
	}
	if len(secret) < signedurl.MinSecret {
		return k, fmt.Errorf("%s: the secret of %q is shorter than %d characters: openssl rand -hex 32", fieldSigningKeys, k.name, signedurl.MinSecret)
	}
	k.secret = []byte(secret)
	if k.fields, err = p.FieldStringList(fieldKeyFields); err != nil {
		return k, err
	}
	k.limits, err = parseLimits(p)
	return k, err
}

func parseLimits(p *service.ParsedConfig) (l limits, err error) {
	if l.requests.perSecond, err = p.FieldFloat(fieldPerSecond); err != nil {
		return l, err
	}
	if l.requests.burst, err = p.FieldInt(fieldBurst); err != nil {
		return l, err
	}
	if l.profiles.perSecond, err = p.FieldFloat(fieldProfilesPerSecond); err != nil {
		return l, err
	}
	if l.requests.perSecond < 0 || l.requests.burst < 0 || l.profiles.perSecond < 0 {
		return l, fmt.Errorf("%s, %s and %s must be zero or more", fieldPerSecond, fieldBurst, fieldProfilesPerSecond)
	}
	l.requests.start()
	l.profiles.start()
	return l, nil
}

// start creates the limiter of a limit with a rate. A burst of zero stands for the
// units of one second.
func (l *limit) start() {
	if l.perSecond == 0 {
		return
	}
	if l.burst == 0 {
		l.burst = int(math.Ceil(min(l.perSecond, math.MaxInt32)))
	}
	l.limiter = rate.NewLimiter(rate.Limit(l.perSecond), l.burst)
}

// keep takes over the state of rate limits from the previous credentials, so that a
// reload does not reset them.
func (c *credentials) keep(old *credentials) {
	used := map[string]limits{}
	for i := range old.tokens {
		used[string(old.tokens[i].hash[:])] = old.tokens[i].limits
	}
	for i := range old.keys {
		used[old.keys[i].name+"\n"+string(old.keys[i].secret)] = old.keys[i].limits
	}
	keep := func(l *limit, before limit) {
		if before.perSecond == l.perSecond && before.burst == l.burst {
			*l = before
		}
	}
	keepBoth := func(l *limits, id string) {
		keep(&l.requests, used[id].requests)
		keep(&l.profiles, used[id].profiles)
	}
	for i := range c.tokens {
		keepBoth(&c.tokens[i].limits, string(c.tokens[i].hash[:]))
	}
	for i := range c.keys {
		keepBoth(&c.keys[i].limits, c.keys[i].name+"\n"+string(c.keys[i].secret))
	}
}

// join returns the credentials of both.
func (c *credentials) join(o *credentials) (*credentials, error) {
	all := &credentials{
		tokens: append(append([]token(nil), c.tokens...), o.tokens...),
		keys:   append(append([]signingKey(nil), c.keys...), o.keys...),
	}
	return all, all.check()
}

// credentialsFile is the spec of tokens_file.
var credentialsFile = configspec.New("token", credentialFields)

// LintCredentials returns the findings in a file of tokens and signing keys.
func LintCredentials(path string) ([]finding.Finding, error) {
	f, lints, err := credentialsFile.Read(path)
	if err != nil || len(lints) > 0 {
		return lints, err
	}
	_, err = parseCredentials(f.Conf)
	return configspec.Findings(path, err, func(error) int { return 1 }), nil
}

func readCredentials(path string) (*credentials, error) {
	f, lints, err := credentialsFile.Read(path)
	if err != nil {
		return nil, err
	}
	if len(lints) > 0 {
		// The findings may quote secrets, so only their lines are reported.
		var lines []string
		for _, l := range lints {
			lines = append(lines, fmt.Sprint(l.Line))
		}
		return nil, fmt.Errorf("%s is not valid at line %s: run connect-personalize lint %s", path, strings.Join(lines, ", "), path)
	}
	return parseCredentials(f.Conf)
}

// rotation polls tokens_file and applies its changes. A file with an error is not
// applied: the previous credentials stay, and the error is logged.
type rotation struct {
	path   string
	inline *credentials
	guard  *guard
	log    *service.Logger
	files  *follow.Files[[sha256.Size]byte]
}

// rotationInterval is the interval of polls.
const rotationInterval = 2 * time.Second

// start loads the file.
func (f *rotation) start() (err error) {
	f.files, err = follow.Open(f.hash(), follow.Source[[sha256.Size]byte]{
		State: func([sha256.Size]byte) ([sha256.Size]byte, error) { return f.hash(), nil },
		Equal: func(a, b [sha256.Size]byte) bool { return a == b },
		Load:  func(now [sha256.Size]byte) ([sha256.Size]byte, error) { return now, f.load() },
	})
	return err
}

// hash returns a hash of the content of the file, that of no content if it cannot be
// read.
func (f *rotation) hash() [sha256.Size]byte {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(text)
}

func (f *rotation) load() error {
	read, err := readCredentials(f.path)
	if err != nil {
		return fmt.Errorf("%s: %w", fieldTokensFile, err)
	}
	all, err := f.inline.join(read)
	if err != nil {
		return fmt.Errorf("%s: %w", fieldTokensFile, err)
	}
	if old := f.guard.accepted.Load(); old != nil {
		all.keep(old)
	}
	f.guard.accepted.Store(all)
	return nil
}

// reloaded logs the outcome of a reload.
func (f *rotation) reloaded(err error) {
	if err != nil {
		f.log.Errorf("The tokens stay as they were: %v", withoutPathError(err))
		return
	}
	accepted := f.guard.accepted.Load()
	f.log.Infof("The tokens were reloaded: %d tokens, %d signing keys.", len(accepted.tokens), len(accepted.keys))
}

// withoutPathError returns the cause of a failed read, without the path.
func withoutPathError(err error) error {
	var missing *os.PathError
	if errors.As(err, &missing) {
		return fmt.Errorf("%s: %w", fieldTokensFile, missing)
	}
	return err
}

// follow reloads the file on changes until ctx ends.
func (f *rotation) follow(ctx context.Context) {
	f.files.Follow(ctx, rotationInterval, f.reloaded)
}
