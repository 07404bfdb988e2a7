package models

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// encode encodes the parameter file of a model. Parse is its inverse.
func encode(m Model) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", m.Kind(), err)
	}
	var b bytes.Buffer
	line := func(key, value string) { fmt.Fprintf(&b, "%s: %s\n", key, value) }

	from := m.Origin()
	line(keyModel, string(m.Kind()))
	if from.Version != "" {
		line(keyVersion, strconv.Quote(from.Version))
	}
	line(keyFittedAt, from.FittedAt.UTC().Format(time.RFC3339Nano))
	if !from.ObservedUntil.IsZero() {
		line(keyObservedUntil, from.ObservedUntil.Format(time.DateOnly))
	}
	if from.Customers > 0 {
		line(keyCustomers, strconv.Itoa(from.Customers))
	}
	if from.LogLikelihood != 0 {
		line(keyLogLikelihood, number(from.LogLikelihood))
	}
	switch m := m.(type) {
	case *BGNBD:
		line(keyTimeUnit, FormatUnit(m.Unit))
		fmt.Fprintf(&b, "%s:\n  r: %s\n  alpha: %s\n  a: %s\n  b: %s\n", keyParameters,
			number(m.R), number(m.Alpha), number(m.A), number(m.B))
	case *GammaGamma:
		fmt.Fprintf(&b, "%s:\n  p: %s\n  q: %s\n  gamma: %s\n", keyParameters,
			number(m.P), number(m.Q), number(m.Gamma))
	case *Propensity:
		line(keyIntercept, number(m.Intercept))
		b.WriteString(keyInputs + ":\n")
		for _, in := range m.Inputs {
			fmt.Fprintf(&b, "  - { name: %s, coefficient: %s, center: %s, scale: %s, default: %s }\n",
				strconv.Quote(in.Name), number(in.Coefficient), number(in.Center), number(in.Scale), number(in.Default))
		}
	}
	return b.Bytes(), nil
}

// Save replaces the parameter file at path atomically and durably: a reader sees
// the old file or the complete new one, even after a power failure. It creates
// the folder if needed.
func Save(path string, m Model) error {
	data, err := encode(m)
	if err != nil {
		return err
	}
	if _, err := parse(path, data); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// In the same folder, because a rename cannot cross file systems, and with a
	// name that does not match *.yaml.
	temp := filepath.Join(dir, fmt.Sprintf(".%s.%d.tmp", filepath.Base(path), os.Getpid()))
	if err := writeSynced(temp, data); err != nil {
		_ = os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncFolder(dir)
}

func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		_ = file.Close()
		return err
	}
	if err := file.Sync(); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}

// syncFolder makes a rename durable. It ignores the error of file systems that
// cannot sync a folder.
func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = folder.Sync()
	return folder.Close()
}
