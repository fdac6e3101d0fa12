/*
 * What of libntfs-3g the worker uses, as calls that stand alone.
 *
 * The library's structures change with the options it was built with, so they stay on this side.
 * Files are named by their MFT reference, never by a pointer: each call opens what it needs and
 * closes it again, which keeps at most one inode open besides the folder that it is in.
 *
 * Every call returns 0, or a value of errno above 0. Nothing here is safe to use from two threads.
 */
#ifndef CE_NTFS_H
#define CE_NTFS_H

#include <stdint.h>

/* The volume as a disk. The calls return 0, or a value of errno. They must not unwind. */
struct ce_disk {
	void *context;
	int64_t size;
	int32_t sector_size;
	int (*read)(void *context, uint64_t offset, uint64_t length, void *bytes);
	int (*write)(void *context, uint64_t offset, uint64_t length, const void *bytes);
	int (*sync)(void *context);
};

struct ce_volume;

/* The root folder, as a reference. */
#define CE_ROOT 5

/* How the content of a file is kept. */
#define CE_KEPT_COMPRESSED 1u
#define CE_KEPT_SPARSE 2u
#define CE_KEPT_ENCRYPTED 4u

struct ce_info {
	uint32_t attributes;	/* of $STANDARD_INFORMATION, without the bits of NTFS's own */
	uint32_t reparse_tag;	/* 0 when it is no reparse point */
	uint32_t names;		/* short names not counted */
	uint32_t is_folder;
	uint32_t kept;		/* CE_KEPT_* of the unnamed stream */
	uint32_t security_id;	/* 0 when it has a descriptor of its own */
	uint64_t created;	/* 100 ns since 1601 */
};

struct ce_changes {
	uint32_t set_attributes;	/* whether `attributes` counts */
	uint32_t attributes;
	uint32_t set_times;		/* whether the times count */
	uint64_t created;
	uint64_t modified;
	uint64_t accessed;
};

int ce_mount(const struct ce_disk *disk, struct ce_volume **volume);

/* Ends the use of the volume, also when it fails. */
int ce_unmount(struct ce_volume *volume);

int ce_lookup(struct ce_volume *volume, uint64_t folder, const uint16_t *name, uint8_t length,
	      uint64_t *file);
int ce_inspect(struct ce_volume *volume, uint64_t file, struct ce_info *info);

/* Calls `found` for every name but short ones; it returns 0 to go on. */
int ce_list(struct ce_volume *volume, uint64_t folder, void *context,
	    int (*found)(void *context, uint64_t file, const uint16_t *name, uint8_t length));

/* `security_id` must not be 0: the library would let everyone write then. */
int ce_create(struct ce_volume *volume, uint64_t folder, const uint16_t *name, uint8_t length,
	      int is_folder, uint32_t security_id, uint64_t *file);
int ce_delete(struct ce_volume *volume, uint64_t folder, uint64_t file, const uint16_t *name,
	      uint8_t length);

/* Makes `size` bytes the content of a file that is neither compressed nor sparse. */
int ce_write(struct ce_volume *volume, uint64_t file, uint64_t size, void *context,
	     int (*content)(void *context, uint64_t offset, uint64_t length, void *bytes));
int ce_change(struct ce_volume *volume, uint64_t file, const struct ce_changes *changes);

/* The security id that something new in `folder` inherits. */
int ce_inherited(struct ce_volume *volume, uint64_t folder, int is_folder, uint32_t *security_id);
int ce_read_security(struct ce_volume *volume, uint64_t file, uint8_t *descriptor,
		     uint32_t capacity, uint32_t *length);
int ce_write_security(struct ce_volume *volume, uint64_t file, const uint8_t *descriptor,
		      uint32_t length);

/* ASCII, ended by a zero; `capacity` of at least 13. An empty name when there is none. */
int ce_read_short_name(struct ce_volume *volume, uint64_t folder, uint64_t file, char *name,
		       uint32_t capacity);
int ce_write_short_name(struct ce_volume *volume, uint64_t folder, uint64_t file,
			const char *name);

/* What the library complained about last, and forgets it; valid until the next call. */
const char *ce_last_message(void);

#endif
