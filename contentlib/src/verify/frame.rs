//! A pack beside its chunks and recipes: its header, its footer, the log in it; and what of it an index
//! that is made anew would find.

use super::VerifyOptions;
use crate::error::{MaintainError, OpenError};
use crate::index::{PackInfo, PackState};
use crate::pack::format::{BadPack, Kind, PACK_HEADER};
use crate::pack::reader::{RecordError, Said, Scan, footer, pack_header, record};
use crate::store::{PackFile, is_media_error};

/// How a pack is, beside what is in it.
pub(super) struct PackFrame {
    /// What is wrong with it.
    pub wrong: Vec<String>,
    /// Records from this offset on are found by the present index alone: no footer names them, and no
    /// commit behind them can be read. The last offset of all if there are none, or it was not looked.
    pub found_to: u64,
}

/// Looks at a pack's header, footer, log and aliases.
pub(super) fn check(
    file: &dyn PackFile,
    info: &PackInfo,
    options: &VerifyOptions,
) -> Result<PackFrame, MaintainError> {
    let mut pack = PackFrame { wrong: Vec::new(), found_to: u64::MAX };
    // Of a pack that a failed write or sync ended before its first commit, nothing counts, the
    // header neither.
    if info.len <= PACK_HEADER as u64 {
        return Ok(pack);
    }
    match pack_header(file) {
        Ok(_) => {}
        // Not damage: it must not be condemned for what is not known here.
        Err(RecordError::Bad(BadPack::Newer(found))) => {
            return Err(OpenError::newer_pack(info.id, found).into());
        }
        Err(error) => pack.wrong.push(error.to_string()),
    }
    match footer(file) {
        Ok(Some((entries, _))) => {
            let told_here = |kind| !matches!(kind, Kind::Block | Kind::Recipe);
            for entry in entries.iter().filter(|entry| told_here(entry.kind)) {
                if let Err(error) = record(file, entry.offset, entry.body_len) {
                    pack.wrong.push(format!("commits or other names: {error}"));
                }
            }
            return Ok(pack);
        }
        // Others than sealed ones need have none.
        found if info.state == PackState::Sealed => pack.wrong.push(match found {
            Err(error) => error.to_string(),
            Ok(_) => "its footer is gone".into(),
        }),
        _ => {}
    }
    if options.read_percent == 100 {
        // Without a footer only a scan finds its records.
        let (covered, end) = scan(file, info)?;
        pack.found_to = covered;
        if end < info.len {
            pack.wrong.push(format!("without an index it cannot be read from byte {end} on"));
        }
    }
    Ok(pack)
}

/// Where the last commit ends that reading from front to back finds, and where such reading ends.
fn scan(file: &dyn PackFile, info: &PackInfo) -> Result<(u64, u64), MaintainError> {
    let fail = |source| MaintainError::Store { pack: info.id, source };
    let (mut covered, mut end) = (PACK_HEADER as u64, PACK_HEADER as u64);
    for found in Scan::new(file, end).map_err(fail)? {
        match found {
            Ok(found) => {
                end = u64::from(found.offset) + found.header.record_len();
                if matches!(found.said, Said::Log(_)) {
                    covered = end;
                }
            }
            Err(source) if is_media_error(&source) => break,
            Err(source) => return Err(fail(source)),
        }
    }
    Ok((covered, end))
}
