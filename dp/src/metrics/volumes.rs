//! The gauges of each volume, so that an alarm can be set before a disk is full.

use super::{header, line};
use contentlib::{LibraryStats, VolumeState, VolumeStats};

type Figure = fn(&VolumeStats) -> Option<u64>;

const FIGURES: [(&str, &str, Figure); 5] = [
    ("depot_library_volume_free_bytes", "Free bytes of the volume.", |volume| volume.free_bytes),
    ("depot_library_volume_reserve_bytes", "Bytes that stay free on the volume.", |volume| {
        Some(volume.reserve_bytes)
    }),
    ("depot_library_volume_stored_bytes", "Bytes of packs on the volume.", |volume| {
        Some(volume.stored_bytes)
    }),
    ("depot_library_volume_packs", "Packs on the volume.", |volume| Some(volume.packs)),
    ("depot_library_volume_active", "1 if the volume takes new packs.", |volume| {
        Some(u64::from(volume.state == VolumeState::Active))
    }),
];

pub(super) fn render(out: &mut String, library: &LibraryStats) {
    for (name, help, figure) in FIGURES {
        header(out, name, "gauge", help);
        for volume in &library.volumes {
            if let Some(value) = figure(volume) {
                // A volume's name has no character that a label would have to escape.
                line(out, name, &[("volume", &volume.name)], value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_volume_is_a_label_and_what_is_unknown_is_left_out() {
        let volume = |name: &str, free_bytes| VolumeStats {
            id: String::new(),
            name: name.into(),
            path: String::new(),
            state: VolumeState::Active,
            packs: 3,
            stored_bytes: 4,
            free_bytes,
            reserve_bytes: 6,
        };
        let volumes = vec![volume("home", Some(5)), volume("disk2", None)];
        let mut out = String::new();
        render(&mut out, &LibraryStats { volumes, ..LibraryStats::default() });
        assert!(out.contains("depot_library_volume_free_bytes{volume=\"home\"} 5\n"), "{out}");
        assert!(!out.contains("free_bytes{volume=\"disk2\"}"), "{out}");
        assert!(out.contains("depot_library_volume_reserve_bytes{volume=\"disk2\"} 6\n"), "{out}");
    }
}
