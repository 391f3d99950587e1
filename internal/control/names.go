package control

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"
)

// JSON cannot carry every file name: what is not valid UTF-8 would come out as other names. Rows with names therefore have a
// second, base64 key beside each that needs it.

// The plain types have the fields without the methods.
type (
	plainPending   PendingRow
	plainExplained Explained
	plainList      ListRow
)

// MarshalJSON adds path_b64 where JSON alone would damage the path.
func (r PendingRow) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		plainPending
		PathB64 []byte `json:"path_b64,omitempty"`
	}{plainPending(r), Lossless(r.Path)})
}

// UnmarshalJSON takes path_b64 where it is given.
func (r *PendingRow) UnmarshalJSON(data []byte) error {
	v := struct {
		*plainPending
		PathB64 []byte `json:"path_b64"`
	}{plainPending: (*plainPending)(r)}
	err := json.Unmarshal(data, &v)
	restore(&r.Path, v.PathB64)
	return err
}

// MarshalJSON adds path_b64 where JSON alone would damage the path.
func (e Explained) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		plainExplained
		PathB64 []byte `json:"path_b64,omitempty"`
	}{plainExplained(e), Lossless(e.Path)})
}

// UnmarshalJSON takes path_b64 where it is given.
func (e *Explained) UnmarshalJSON(data []byte) error {
	v := struct {
		*plainExplained
		PathB64 []byte `json:"path_b64"`
	}{plainExplained: (*plainExplained)(e)}
	err := json.Unmarshal(data, &v)
	restore(&e.Path, v.PathB64)
	return err
}

// MarshalJSON adds path_b64 and target_b64 where JSON alone would damage them.
func (r ListRow) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		plainList
		PathB64   []byte `json:"path_b64,omitempty"`
		TargetB64 []byte `json:"target_b64,omitempty"`
	}{plainList(r), Lossless(r.Path), Lossless(r.Target)})
}

// UnmarshalJSON takes path_b64 and target_b64 where they are given.
func (r *ListRow) UnmarshalJSON(data []byte) error {
	v := struct {
		*plainList
		PathB64   []byte `json:"path_b64"`
		TargetB64 []byte `json:"target_b64"`
	}{plainList: (*plainList)(r)}
	err := json.Unmarshal(data, &v)
	restore(&r.Path, v.PathB64)
	restore(&r.Target, v.TargetB64)
	return err
}

// Lossless returns a name that JSON would damage, for the key with base64 beside it; nil where there is no need.
func Lossless(name string) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(name)
}

func restore(name *string, bytes []byte) {
	if bytes != nil {
		*name = string(bytes)
	}
}

// encodePath carries any name through an HTTP query.
func encodePath(p string) string { return base64.RawURLEncoding.EncodeToString([]byte(p)) }

func decodePath(s string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	return string(b), err
}
