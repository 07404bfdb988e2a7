package lint

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// expand returns the files that arguments name, by the rules of the engine's commands:
// a path that ends in ... stands for all YAML files below it, * ? [ and ** form
// patterns, and any other name is returned even if the file does not exist.
func expand(named []string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	add := func(paths ...string) {
		for _, path := range paths {
			if !seen[path] {
				seen[path] = true
				files = append(files, path)
			}
		}
	}
	for _, name := range named {
		if root, walks := strings.CutSuffix(name, "..."); walks {
			found, err := walk(root)
			if err != nil {
				return nil, err
			}
			add(found...)
			continue
		}
		found, err := glob(name)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 && !strings.ContainsAny(name, `*?[\`) && name != "" {
			found = []string{name}
		}
		add(found...)
	}
	return files, nil
}

func walk(root string) (files []string, err error) {
	if root = strings.TrimSuffix(root, string(filepath.Separator)); root == "" {
		root = "."
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && hasYAMLName(path) {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// glob is filepath.Glob with ** for any number of folders.
func glob(pattern string) ([]string, error) {
	before, after, deep := strings.Cut(pattern, "**")
	if !deep {
		return filepath.Glob(pattern)
	}
	roots := []string{"."}
	if before != "" {
		var err error
		if roots, err = filepath.Glob(before); err != nil {
			return nil, err
		}
	}
	var files []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case after != "":
				found, err := glob(path + after)
				files = append(files, found...)
				return err
			case !entry.IsDir():
				files = append(files, path)
			}
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
	}
	return files, nil
}

func hasYAMLName(path string) bool {
	return strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml")
}

// escapeGlob returns a pattern that matches only the file named path.
func escapeGlob(path string) string {
	if os.PathSeparator == '\\' {
		return path
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
