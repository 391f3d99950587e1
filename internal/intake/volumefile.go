package intake

import (
	"context"
	"encoding/json"
	"fmt"

	"slipway/internal/state"
	"slipway/internal/store"
)

// VolumeFile is volume.json at the root of a volume in a store: facts for people, and the id that tells two volumes of one name
// apart.
const VolumeFile = "volume.json"

const maxVolumeFile = 64 << 10

// ReadVolumeFile reads volume.json; store.ErrNotExist when nothing has arrived yet.
func ReadVolumeFile(ctx context.Context, s store.Store) (state.Volume, error) {
	data, err := s.Read(ctx, VolumeFile, maxVolumeFile)
	if err != nil {
		return state.Volume{}, fmt.Errorf("read %s: %w", VolumeFile, err)
	}
	var v state.Volume
	if err := json.Unmarshal(data, &v); err != nil {
		return state.Volume{}, fmt.Errorf("read %s: %w", VolumeFile, err)
	}
	if v.Format != 1 {
		return state.Volume{}, fmt.Errorf("read %s: format %d is not known to this slipway", VolumeFile, v.Format)
	}
	return v, nil
}
