//! NTFS volumes of every geometry, changed by libntfs-3g in its confined process, and held against
//! a model by readers that share no code with it: ntfsfix, sleuthkit, dissect.ntfs, the `ntfs` crate,
//! and ours.

mod confined;
mod edits;
mod faults;
mod kept;
mod killed;
mod model;
mod volume;
mod walk;
