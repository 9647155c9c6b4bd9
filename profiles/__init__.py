"""Device, battery, model and rig profiles: data, validated by joulemeter.profile."""
