//! The tables that depmod(8) writes: modules.alias and modules.dep.

use std::collections::BTreeMap;

use super::pattern::matches;

/// Which module is for what, and which files it needs.
#[derive(Debug, Default)]
pub struct Table {
    /// Pattern and module. A wildcard may stand anywhere in a pattern, also in the name of the bus
    /// (`acpi*:VMBUS:*`), so that all of them are tried.
    aliases: Vec<(String, String)>,
    /// By the module's name: its file, then those that it needs, the one needed first last.
    files: BTreeMap<String, Vec<String>>,
}

impl Table {
    /// Reads both. Lines that are none of theirs are passed over, as kmod does.
    pub fn parse(aliases: &str, dependencies: &str) -> Self {
        let mut table = Self::default();
        for line in aliases.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) =
                (words.next(), words.next(), words.next())
            {
                table.aliases.push((pattern.to_owned(), name.to_owned()));
            }
        }
        for line in dependencies.lines() {
            let Some((file, needed)) = line.split_once(':') else {
                continue;
            };
            let files = std::iter::once(file).chain(needed.split_ascii_whitespace());
            let files = files.map(str::to_owned).collect();
            table.files.insert(name_of(file), files);
        }
        table
    }

    /// The modules for a device, each once.
    pub fn names_for(&self, modalias: &str) -> Vec<String> {
        let mut names = Vec::new();
        for (pattern, name) in &self.aliases {
            if matches(pattern, modalias) && !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// The files of a module in the order in which they have to be loaded; none if it is not there.
    pub fn files(&self, name: &str) -> Vec<String> {
        let files = self.files.get(&plain(name));
        files.into_iter().flatten().rev().cloned().collect()
    }
}

/// `kernel/drivers/block/xen-blkfront.ko` is the file of `xen_blkfront`.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    plain(name.split('.').next().unwrap_or(name))
}

/// Names are the same with `-` and with `_`.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIASES: &str = "# Aliases extracted from modules themselves.\n\
        alias virtio:d00000002v* virtio_blk\n\
        alias virtio:d00000008v* virtio_scsi\n\
        alias xen:vbd xen_blkfront\n\
        alias acpi*:VMBUS:* hv_vmbus\n\
        alias pci:v*d*sv*sd*bc01sc06i01* ahci\n\
        alias pci:v00008086d00002922sv*sd*bc*sc*i* ahci\n\
        alias broken\n";
    const DEPENDENCIES: &str = "kernel/drivers/ata/ahci.ko: kernel/drivers/ata/libahci.ko \
        kernel/drivers/ata/libata.ko kernel/drivers/scsi/scsi_mod.ko\n\
        kernel/drivers/block/xen-blkfront.ko:\n\nno colon\n";

    #[test]
    fn a_device_finds_its_module_once() {
        let table = Table::parse(ALIASES, DEPENDENCIES);
        let device = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";
        assert_eq!(table.names_for(device), ["ahci"]);
        assert_eq!(table.names_for("xen:vbd"), ["xen_blkfront"]);
        assert_eq!(table.names_for("acpi:VMBUS:"), ["hv_vmbus"]);
        assert!(table.names_for("xen:vif").is_empty());
        assert!(table.names_for("").is_empty());
    }

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let table = Table::parse(ALIASES, DEPENDENCIES);
        let files: Vec<_> = table
            .files("ahci")
            .iter()
            .map(|file| file.rsplit('/').next().unwrap().to_owned())
            .collect();
        assert_eq!(files, ["scsi_mod.ko", "libata.ko", "libahci.ko", "ahci.ko"]);
        assert_eq!(table.files("xen_blkfront"), table.files("xen-blkfront"));
        assert!(table.files("none").is_empty());
    }
}
