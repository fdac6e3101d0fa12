//! A Windows in memory that is fit to be streamed, and one thing wrong with it at a time.

use ce_disk::volume::MemoryVolume;

use super::*;
use crate::catalog::Catalog;
use crate::inspect::tests::{folder, hive, volume};

#[test]
fn a_windows_with_the_whole_chain_is_fit() {
    let fitness = Guest::new().fitness();
    assert_eq!(fitness.refused, [], "{fitness:?}");
    assert_eq!(fitness.warnings, [], "{fitness:?}");
}

#[test]
fn a_windows_without_the_target_device_software_is_refused_once() {
    let mut guest = Guest::new();
    guest.services.retain(|(name, _)| *name == "netvsc");
    let refused = guest.fitness().refused;
    let [one] = refused.as_slice() else {
        panic!("{refused:?}");
    };
    assert!(one.found.contains("not installed"), "{one:?}");
}

#[test]
fn every_break_in_the_chain_is_refused_with_its_place() {
    let breaks: [(&str, Break, &str); 7] = [
        (
            "service",
            |guest| guest.services.retain(|(name, _)| *name != "cfsdep2"),
            "cfsdep2 (file system filter of the write cache): ControlSet001: the service is not",
        ),
        (
            "disabled",
            |guest| {
                guest.set(
                    "cvhdmp",
                    "\"Start\"=dword:00000004\n\"Type\"=dword:00000001\n",
                )
            },
            "ControlSet001: the service is disabled",
        ),
        (
            "no start",
            |guest| guest.set("bnistack", "\"Type\"=dword:00000001\n"),
            "the service has no Start",
        ),
        (
            "override",
            |guest| {
                guest
                    .services
                    .push((r"cvhdmp\StartOverride", "\"0\"=dword:00000003\n".into()))
            },
            "StartOverride stands against",
        ),
        (
            "file",
            |guest| {
                guest
                    .images
                    .retain(|(path, _)| !path.ends_with("CVhdMp.sys"))
            },
            "CVhdBusP6.sys is there",
        ),
        (
            "machine",
            |guest| guest.images[0].1 = program(pe::MACHINE_X86),
            "for machine 0x014c, expected 0x8664",
        ),
        (
            "no program",
            |guest| guest.images[0].1 = b"nothing".to_vec(),
            "is no program (PE) file",
        ),
    ];
    for (what, break_it, expected) in breaks {
        let mut guest = Guest::new();
        break_it(&mut guest);
        let fitness = guest.fitness();
        let told = fitness
            .refused
            .iter()
            .any(|unfit| unfit.found.contains(expected));
        assert!(told, "{what}: {fitness:?}");
        assert_eq!(fitness.refused.len(), 1, "{what}: {fitness:?}");
        assert!(
            fitness
                .refused
                .iter()
                .all(|unfit| !unfit.way_out.is_empty())
        );
    }
}

#[test]
fn what_may_not_start_is_a_warning() {
    let breaks: [(&str, Break, &str); 4] = [
        (
            "late adapter",
            |guest| guest.set("netvsc", NETVSC_WITHOUT_FLAGS),
            "netvsc (Hyper-V network adapter) has no BootFlags",
        ),
        (
            "fixed address",
            |guest| {
                guest.services.push((
                    r"Tcpip\Parameters\Interfaces\{1c2b4b1e-5a5f-4a3b-9a0c-000000000001}",
                    "\"EnableDHCP\"=dword:00000000\n\"IPAddress\"=hex(7):31,00,30,00,2e,00,31,00,\
                     2e,00,31,00,2e,00,31,00,00,00,00,00\n"
                        .into(),
                ));
            },
            "has the fixed address 10.1.1.1",
        ),
        (
            "leftover",
            |guest| guest.root.push("personality.ini"),
            "Personality.ini is there: the identity of an earlier machine",
        ),
        (
            "unknown platform",
            |guest| guest.platform = None,
            "which platform the disk is to be streamed on is not known",
        ),
    ];
    for (what, break_it, expected) in breaks {
        let mut guest = Guest::new();
        break_it(&mut guest);
        let fitness = guest.fitness();
        assert_eq!(fitness.refused, [], "{what}");
        let told = fitness
            .warnings
            .iter()
            .any(|unfit| unfit.found.contains(expected));
        assert!(told, "{what}: {fitness:?}");
        assert_eq!(fitness.warnings.len(), 1, "{what}: {fitness:?}");
    }
}

#[test]
fn an_adapter_without_a_driver_is_refused() {
    let mut guest = Guest::new();
    guest.has_inf = false;
    let refused = guest.fitness().refused;
    let told = |unfit: &Unfit| {
        unfit
            .found
            .starts_with("no network adapter has a driver: Hyper-V")
    };
    assert!(refused.iter().any(told), "{refused:?}");
}

#[test]
fn a_platform_that_nothing_is_streamed_on_is_refused() {
    let mut guest = Guest::new();
    guest.platform = Some(Platform::Aws);
    let refused = guest.fitness().refused;
    let [one] = refused.as_slice() else {
        panic!("{refused:?}");
    };
    let expected = "disks are not streamed on aws, but on azure, gcp, vsphere, xenserver";
    assert_eq!(one.found, expected);
}

/// Takes something away from a Windows that is fit.
type Break = fn(&mut Guest);

struct Guest {
    services: Vec<(&'static str, String)>,
    images: Vec<(String, Vec<u8>)>,
    root: Vec<&'static str>,
    has_inf: bool,
    platform: Option<Platform>,
}

impl Guest {
    fn new() -> Self {
        let requirements = Requirements::builtin().unwrap();
        let driver = "\"Start\"=dword:00000000\n\"Type\"=dword:00000001\n";
        let mut services: Vec<(&'static str, String)> = requirements
            .drivers
            .iter()
            .map(|driver| &*driver.service)
            .map(|name| (name, driver.to_owned()))
            .collect();
        let netvsc = format!("{NETVSC_WITHOUT_FLAGS}\"BootFlags\"=dword:00000001\n");
        services.push(("netvsc", netvsc));
        let images = requirements.drivers.iter();
        let mut images: Vec<_> = images
            .map(|driver| (driver.images[0].clone(), program(pe::MACHINE_AMD64)))
            .collect();
        images.push((
            r"System32\drivers\netvsc.sys".into(),
            program(pe::MACHINE_AMD64),
        ));
        Self {
            services,
            images,
            root: Vec::new(),
            has_inf: true,
            platform: Some(Platform::Azure),
        }
    }

    fn set(&mut self, service: &str, values: &str) {
        for (name, found) in &mut self.services {
            if *name == service {
                *found = values.to_owned();
            }
        }
    }

    fn volume(&self) -> MemoryVolume {
        let mut keys = "[Select]\n\"Current\"=dword:00000001\n[ControlSet001]\n".to_owned();
        for (name, values) in &self.services {
            keys.push_str(&format!("[ControlSet001\\Services\\{name}]\n{values}"));
        }
        let mut volume = volume(&[(HiveName::System, hive(&keys))]);
        for (path, content) in &self.images {
            volume.put(&folder().join(path).unwrap(), content.clone());
        }
        if self.has_inf {
            let inf = folder().join(r"INF\wnetvsc.inf").unwrap();
            volume.put(&inf, b"[Version]".to_vec());
        }
        for file in &self.root {
            volume.put(&file.parse().unwrap(), Vec::new());
        }
        volume
    }

    fn fitness(&self) -> Fitness {
        let volume = self.volume();
        let hives = HiveSet::load(&volume, &folder(), &[HiveName::System]);
        let inspection = Inspection::of(&hives);
        let catalog = Catalog::builtin().unwrap();
        let streamed_on = self.platform.map(|platform| {
            let preparation = catalog.preparation(None, platform);
            let proof = Proof::of(&crate::proof::Subject {
                preparation: &preparation,
                inspection: &inspection,
                volume: &volume,
                folder: &folder(),
                boot: None,
            });
            (platform, preparation, proof)
        });
        fitness(&Subject {
            requirements: Requirements::builtin().unwrap(),
            inspection: &inspection,
            hives: &hives,
            volume: &volume,
            folder: &folder(),
            platform: streamed_on
                .as_ref()
                .map(|(platform, preparation, proof)| StreamPlatform {
                    platform: *platform,
                    preparation,
                    proof,
                }),
        })
        .unwrap()
    }
}

/// A PE file for `machine`, as far as that is looked at.
fn program(machine: u16) -> Vec<u8> {
    let mut file = vec![0; 0x80];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
    file
}

const NETVSC_WITHOUT_FLAGS: &str = "\"Start\"=dword:00000003\n\"Type\"=dword:00000001\n\"ImagePath\"=\"System32\\\\drivers\\\\netvsc.sys\"\n";
