//! `/etc/resolv.conf`, from what all interfaces were given.

use std::fs;
use std::io;
use std::path::Path;

use super::Given;

/// Writes `path` for what was given, in this order.
///
/// # Errors
///
/// It can't be written.
pub fn write<'g>(path: &Path, given: impl Iterator<Item = &'g Given>) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text(given))?;
    fs::rename(new, path)
}

fn text<'g>(given: impl Iterator<Item = &'g Given>) -> String {
    let mut text = String::from("options timeout:2 attempts:3\n");
    let mut servers: Vec<_> = Vec::new();
    let mut domains: Vec<&str> = Vec::new();
    for given in given {
        for server in &given.name_servers {
            if !servers.contains(server) && servers.len() < MOST_SERVERS {
                servers.push(*server);
            }
        }
        for domain in given.domains.iter().filter(|domain| is_domain(domain)) {
            if !domains.contains(&&**domain) && domains.len() < MOST_DOMAINS {
                domains.push(domain);
            }
        }
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !domains.is_empty() {
        text.push_str(&format!("search {}\n", domains.join(" ")));
    }
    text
}

/// What a server calls a domain is written into a file that others read.
fn is_domain(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(is_letter)
}

/// The C library reads no more (resolv.conf(5)).
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn given(servers: &[u8], domain: &str) -> Given {
        Given {
            name_servers: servers
                .iter()
                .map(|last| IpAddr::from([10, 0, 0, *last]))
                .collect(),
            domains: vec![domain.to_owned()],
            ..Given::default()
        }
    }

    #[test]
    fn servers_of_all_interfaces_are_written_each_once() {
        let mut first = given(&[1], "corp.example");
        first.name_servers.push("fd00::53".parse().unwrap());
        let second = given(&[1, 3, 4], "corp.example");
        assert_eq!(
            text([&first, &second].into_iter()),
            "options timeout:2 attempts:3\nnameserver 10.0.0.1\nnameserver fd00::53\n\
             nameserver 10.0.0.3\nsearch corp.example\n"
        );
    }

    #[test]
    fn a_domain_that_is_none_is_left_out() {
        for domain in ["", "a b", "x\nnameserver 6.6.6.6", "é"] {
            let text = text([&given(&[1], domain)].into_iter());
            assert!(!text.contains("search"), "{domain}");
        }
    }

    #[test]
    fn the_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        write(&path, [&given(&[1], "")].into_iter()).unwrap();
        write(&path, [&given(&[2], "")].into_iter()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("10.0.0.2") && !text.contains("10.0.0.1"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
