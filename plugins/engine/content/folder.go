package content

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/follow"
)

// Folder contains the blocks of a folder, one per file. It reloads changed files. If
// a block has a problem, no change is loaded: the last valid blocks stay in use.
type Folder struct {
	*follow.Files[map[string]string] // compared by their content

	path   string
	names  func(definition string) (Names, error)
	blocks atomic.Pointer[map[string]*Block]
}

// maxBlocks is the maximum number of blocks in a folder.
const maxBlocks = 1000

// Open reads the blocks of a folder. names returns the names of a profile definition;
// its argument is "" for blocks without a definition.
func Open(path string, names func(definition string) (Names, error)) (*Folder, error) {
	f := &Folder{path: path, names: names}
	files, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("content: %w; write the path of a folder of content blocks", err)
	}
	f.Files, err = follow.Open(files, follow.Source[map[string]string]{
		State: func(map[string]string) (map[string]string, error) { return f.read() },
		Equal: maps.Equal[map[string]string, map[string]string],
		Load:  func(files map[string]string) (map[string]string, error) { return files, f.take(files) },
	})
	return f, err
}

// Block returns the block with a name.
func (f *Folder) Block(name string) (*Block, bool) {
	b, ok := (*f.blocks.Load())[name]
	return b, ok
}

// Blocks returns all blocks, sorted by name.
func (f *Folder) Blocks() []*Block {
	all := *f.blocks.Load()
	out := make([]*Block, 0, len(all))
	for _, b := range all {
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b *Block) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// read returns the text of every file in the folder.
func (f *Folder) read() (map[string]string, error) {
	paths, err := files(f.path)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			// Reading a named pipe would block for ever.
			return nil, fmt.Errorf("%s is not a regular file", path)
		}
		if info.Size() > maxFileBytes {
			return nil, fmt.Errorf("%s is larger than the maximum size of a block", path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		out[path] = string(text)
	}
	return out, nil
}

// files returns the paths of the blocks in a folder.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".yml") {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.IsDir() {
			continue
		}
		out = append(out, filepath.Join(dir, name))
	}
	if len(out) > maxBlocks {
		return nil, fmt.Errorf("%s has more than %d blocks", dir, maxBlocks)
	}
	return out, nil
}

// take parses all files and replaces the blocks if none has a problem.
func (f *Folder) take(files map[string]string) error {
	blocks := map[string]*Block{}
	var errs []error
	for path, text := range files {
		b, problems := parse(path, []byte(text), f.names)
		if err := finding.ToError(problems); err != nil {
			errs = append(errs, err)
		}
		if b == nil {
			continue
		}
		if blocks[b.Name] != nil {
			errs = append(errs, fmt.Errorf("%s: the block %q has two files", path, b.Name))
		}
		blocks[b.Name] = b
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return errors.Join(errs...)
	}
	f.blocks.Store(&blocks)
	return nil
}

// Lint returns the problems of the blocks in a folder.
func Lint(dir string, names func(definition string) (Names, error)) ([]finding.Finding, error) {
	paths, err := files(dir)
	if err != nil {
		return nil, err
	}
	var all []finding.Finding
	for _, path := range paths {
		_, problems, err := Load(path, names)
		if err != nil {
			return nil, err
		}
		all = append(all, problems...)
	}
	return all, nil
}
