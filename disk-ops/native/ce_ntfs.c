#include "ce_ntfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <linux/fs.h>

#include <ntfs-3g/attrib.h>
#include <ntfs-3g/compat.h>
#include <ntfs-3g/device.h>
#include <ntfs-3g/dir.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/layout.h>
#include <ntfs-3g/logging.h>
#include <ntfs-3g/ntfstime.h>
#include <ntfs-3g/security.h>
#include <ntfs-3g/volume.h>

struct ce_volume {
	struct ce_disk disk;
	int64_t position;
	struct ntfs_device *device;
	ntfs_volume *volume;
	/* Of permissions, which are not asked for; it stays empty. */
	struct PERMISSIONS_CACHE *permissions;
};

static char last_message[256];
static uint8_t chunk[256 << 10];

/* An error without a reason is still an error. */
static int failure(void)
{
	return errno > 0 ? errno : EIO;
}

static int keep_first(int first, int second)
{
	return first ? first : second;
}

static int keep_message(const char *function, const char *file, int line, u32 level, void *data,
			const char *format, va_list arguments)
{
	int saved = errno;

	(void)function;
	(void)file;
	(void)line;
	(void)data;
	if (level & (NTFS_LOG_LEVEL_ERROR | NTFS_LOG_LEVEL_PERROR | NTFS_LOG_LEVEL_CRITICAL))
		vsnprintf(last_message, sizeof(last_message), format, arguments);
	errno = saved;
	return 0;
}

const char *ce_last_message(void)
{
	static char handed_out[sizeof(last_message)];

	memcpy(handed_out, last_message, sizeof(handed_out));
	last_message[0] = 0;
	return handed_out;
}

/* The device operations. */

static struct ce_volume *behind(struct ntfs_device *device)
{
	return device->d_private;
}

static int device_open(struct ntfs_device *device, int flags)
{
	(void)flags;
	NDevSetOpen(device);
	return 0;
}

static int device_sync(struct ntfs_device *device)
{
	struct ce_volume *volume = behind(device);
	int problem = volume->disk.sync(volume->disk.context);

	if (problem) {
		errno = problem;
		return -1;
	}
	NDevClearDirty(device);
	return 0;
}

static int device_close(struct ntfs_device *device)
{
	NDevClearOpen(device);
	return 0;
}

static s64 device_pread(struct ntfs_device *device, void *bytes, s64 count, s64 offset)
{
	struct ce_volume *volume = behind(device);
	int problem;

	if (offset < 0 || count < 0) {
		errno = EINVAL;
		return -1;
	}
	if (offset >= volume->disk.size)
		return 0;
	if (count > volume->disk.size - offset)
		count = volume->disk.size - offset;
	problem = volume->disk.read(volume->disk.context, offset, count, bytes);
	if (problem) {
		errno = problem;
		return -1;
	}
	return count;
}

static s64 device_pwrite(struct ntfs_device *device, const void *bytes, s64 count, s64 offset)
{
	struct ce_volume *volume = behind(device);
	int problem;

	if (offset < 0 || count < 0 || offset > volume->disk.size
	    || count > volume->disk.size - offset) {
		errno = ENOSPC;
		return -1;
	}
	problem = volume->disk.write(volume->disk.context, offset, count, bytes);
	if (problem) {
		errno = problem;
		return -1;
	}
	return count;
}

static s64 device_seek(struct ntfs_device *device, s64 offset, int whence)
{
	struct ce_volume *volume = behind(device);
	s64 from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? volume->position : volume->disk.size;

	if (offset < -from || offset > volume->disk.size - from) {
		errno = EINVAL;
		return -1;
	}
	volume->position = from + offset;
	return volume->position;
}

static s64 device_read(struct ntfs_device *device, void *bytes, s64 count)
{
	s64 done = device_pread(device, bytes, count, behind(device)->position);

	if (done > 0)
		behind(device)->position += done;
	return done;
}

static s64 device_write(struct ntfs_device *device, const void *bytes, s64 count)
{
	s64 done = device_pwrite(device, bytes, count, behind(device)->position);

	if (done > 0)
		behind(device)->position += done;
	return done;
}

static int device_stat(struct ntfs_device *device, struct stat *found)
{
	memset(found, 0, sizeof(*found));
	found->st_mode = S_IFREG | 0600;
	found->st_size = behind(device)->disk.size;
	return 0;
}

static int device_ioctl(struct ntfs_device *device, unsigned long request, void *answer)
{
	switch (request) {
	case BLKGETSIZE64:
		*(uint64_t *)answer = behind(device)->disk.size;
		return 0;
	case BLKSSZGET:
		*(int *)answer = behind(device)->disk.sector_size;
		return 0;
	default:
		errno = EOPNOTSUPP;
		return -1;
	}
}

static struct ntfs_device_operations operations = {
	.open = device_open,
	.close = device_close,
	.seek = device_seek,
	.read = device_read,
	.write = device_write,
	.pread = device_pread,
	.pwrite = device_pwrite,
	.sync = device_sync,
	.stat = device_stat,
	.ioctl = device_ioctl,
};

/* The volume. */

int ce_mount(const struct ce_disk *disk, struct ce_volume **mounted)
{
	struct ce_volume *volume;
	int problem;

	ntfs_log_set_handler(keep_message);
	errno = 0;
	volume = calloc(1, sizeof(*volume));
	if (!volume)
		return ENOMEM;
	volume->disk = *disk;
	volume->device = ntfs_device_alloc("volume", 0, &operations, volume);
	if (!volume->device) {
		problem = failure();
		free(volume);
		return problem;
	}
	/* Without RECOVER and IGNORE_HIBERFILE, which would throw away what Windows left undone. */
	volume->volume = ntfs_device_mount(volume->device, NTFS_MNT_NONE);
	if (!volume->volume) {
		problem = failure();
		NDevClearOpen(volume->device);
		ntfs_device_free(volume->device);
		free(volume);
		return problem;
	}
	/* A folder may ask for its files to be compressed; a boot driver must not be. */
	NVolClearCompression(volume->volume);
	/* The library itself mounts a volume that Windows wants checked. */
	problem = volume->volume->flags & VOLUME_IS_DIRTY ? EUCLEAN : 0;
	/* It counts the free clusters and records as it uses them, if it knows where it started. */
	if (!problem && ntfs_volume_get_free_space(volume->volume))
		problem = failure();
	if (!problem && ntfs_set_ignore_case(volume->volume))
		problem = failure();
	if (!problem && ntfs_set_shown_files(volume->volume, TRUE, TRUE, FALSE))
		problem = failure();
	if (problem) {
		ce_unmount(volume);
		return problem;
	}
	*mounted = volume;
	return 0;
}

int ce_unmount(struct ce_volume *volume)
{
	int problem = 0;

	errno = 0;
	/* Both of them write, and either may fail alone. */
	if (ntfs_close_secure(volume->volume))
		problem = failure();
	if (ntfs_umount(volume->volume, FALSE))
		problem = keep_first(problem, failure());
	/* The device went with the volume. */
	free(volume);
	return problem;
}

static int open_file(struct ce_volume *volume, uint64_t file, ntfs_inode **inode)
{
	uint16_t sequence = MSEQNO(file);

	errno = 0;
	*inode = ntfs_inode_open(volume->volume, file);
	if (!*inode)
		return failure();
	if (sequence && sequence != le16_to_cpu((*inode)->mrec->sequence_number)) {
		ntfs_inode_close(*inode);
		return ESTALE;
	}
	return 0;
}

static int close_file(ntfs_inode *inode)
{
	errno = 0;
	return ntfs_inode_close(inode) ? failure() : 0;
}

int ce_lookup(struct ce_volume *volume, uint64_t folder, const uint16_t *name, uint8_t length,
	      uint64_t *file)
{
	ntfs_inode *inode;
	u64 found;
	int problem = open_file(volume, folder, &inode);

	if (problem)
		return problem;
	errno = 0;
	found = ntfs_inode_lookup_by_name(inode, (const ntfschar *)name, length);
	if (found == (u64)-1)
		problem = failure();
	*file = found;
	return keep_first(problem, close_file(inode));
}

static int count_names(ntfs_inode *inode, uint32_t *count)
{
	ntfs_attr_search_ctx *search = ntfs_attr_get_search_ctx(inode, NULL);
	int problem;

	if (!search)
		return failure();
	errno = 0;
	while (!ntfs_attr_lookup(AT_FILE_NAME, AT_UNNAMED, 0, CASE_SENSITIVE, 0, NULL, 0, search)) {
		const FILE_NAME_ATTR *name = (const FILE_NAME_ATTR *)
			((const u8 *)search->attr + le16_to_cpu(search->attr->value_offset));
		if (name->file_name_type != FILE_NAME_DOS)
			++*count;
		errno = 0;
	}
	problem = errno == ENOENT ? 0 : failure();
	ntfs_attr_put_search_ctx(search);
	return problem;
}

static int read_reparse_tag(ntfs_inode *inode, uint32_t *tag)
{
	ntfs_attr *reparse = ntfs_attr_open(inode, AT_REPARSE_POINT, AT_UNNAMED, 0);
	le32 value;
	int problem = 0;

	if (!reparse)
		return errno == ENOENT ? 0 : failure();
	if (ntfs_attr_pread(reparse, 0, sizeof(value), &value) != sizeof(value))
		problem = failure();
	else
		*tag = le32_to_cpu(value);
	ntfs_attr_close(reparse);
	return problem;
}

static int read_kept(ntfs_inode *inode, uint32_t *kept)
{
	ntfs_attr *data = ntfs_attr_open(inode, AT_DATA, AT_UNNAMED, 0);

	if (!data)
		return errno == ENOENT ? 0 : failure();
	if (data->data_flags & ATTR_COMPRESSION_MASK)
		*kept |= CE_KEPT_COMPRESSED;
	if (data->data_flags & ATTR_IS_SPARSE)
		*kept |= CE_KEPT_SPARSE;
	if (data->data_flags & ATTR_IS_ENCRYPTED)
		*kept |= CE_KEPT_ENCRYPTED;
	ntfs_attr_close(data);
	return 0;
}

int ce_inspect(struct ce_volume *volume, uint64_t file, struct ce_info *info)
{
	ntfs_inode *inode;
	int problem = open_file(volume, file, &inode);

	if (problem)
		return problem;
	memset(info, 0, sizeof(*info));
	errno = 0;
	info->attributes = le32_to_cpu(inode->flags) & 0x7ffff;
	info->is_folder = (inode->mrec->flags & MFT_RECORD_IS_DIRECTORY) != 0;
	info->security_id = test_nino_flag(inode, v3_Extensions)
		? le32_to_cpu(inode->security_id) : 0;
	info->created = sle64_to_cpu(inode->creation_time);
	problem = count_names(inode, &info->names);
	errno = 0;
	if (!problem && (inode->flags & FILE_ATTR_REPARSE_POINT))
		problem = read_reparse_tag(inode, &info->reparse_tag);
	errno = 0;
	if (!problem && !info->is_folder)
		problem = read_kept(inode, &info->kept);
	return keep_first(problem, close_file(inode));
}

struct listing {
	void *context;
	int (*found)(void *context, uint64_t file, const uint16_t *name, uint8_t length);
	int problem;
};

static int list_name(void *listing_, const ntfschar *name, const int length, const int type,
		     const s64 position, const MFT_REF file, const unsigned kind)
{
	struct listing *listing = listing_;
	int dots = length == 1 ? name[0] == const_cpu_to_le16('.')
		: length == 2 && name[0] == const_cpu_to_le16('.')
			&& name[1] == const_cpu_to_le16('.');

	(void)position;
	(void)kind;
	if (dots || type == FILE_NAME_DOS || length < 1 || length > 255)
		return 0;
	listing->problem = listing->found(listing->context, file, (const uint16_t *)name, length);
	return listing->problem;
}

int ce_list(struct ce_volume *volume, uint64_t folder, void *context,
	    int (*found)(void *context, uint64_t file, const uint16_t *name, uint8_t length))
{
	struct listing listing = { .context = context, .found = found };
	ntfs_inode *inode;
	s64 position = 0;
	int problem = open_file(volume, folder, &inode);

	if (problem)
		return problem;
	errno = 0;
	if (ntfs_readdir(inode, &position, &listing, list_name))
		problem = listing.problem ? listing.problem : failure();
	return keep_first(problem, close_file(inode));
}

int ce_create(struct ce_volume *volume, uint64_t folder, const uint16_t *name, uint8_t length,
	      int is_folder, uint32_t security_id, uint64_t *file)
{
	ntfs_inode *parent, *inode;
	int problem;

	if (!security_id)
		return EINVAL;
	problem = open_file(volume, folder, &parent);
	if (problem)
		return problem;
	errno = 0;
	inode = ntfs_create(parent, cpu_to_le32(security_id), (const ntfschar *)name, length,
			    is_folder ? S_IFDIR : S_IFREG);
	if (!inode) {
		problem = failure();
		close_file(parent);
		return problem;
	}
	*file = MK_MREF(inode->mft_no, le16_to_cpu(inode->mrec->sequence_number));
	if (is_folder) {
		/* Windows sets it on files only. */
		inode->flags &= ~FILE_ATTR_ARCHIVE;
		NInoFileNameSetDirty(inode);
		NInoSetDirty(inode);
	}
	ntfs_inode_update_times(parent, NTFS_UPDATE_MCTIME);
	errno = 0;
	if (ntfs_inode_close_in_dir(inode, parent))
		problem = failure();
	return keep_first(problem, close_file(parent));
}

int ce_delete(struct ce_volume *volume, uint64_t folder, uint64_t file, const uint16_t *name,
	      uint8_t length)
{
	ntfs_inode *parent, *inode;
	int problem = open_file(volume, file, &inode);

	if (problem)
		return problem;
	problem = open_file(volume, folder, &parent);
	if (problem) {
		close_file(inode);
		return problem;
	}
	errno = 0;
	/* Closes both, whatever comes of it. */
	return ntfs_delete(volume->volume, NULL, inode, parent, (const ntfschar *)name, length)
		? failure() : 0;
}

static int fill(ntfs_attr *data, uint64_t size, void *context,
		int (*content)(void *context, uint64_t offset, uint64_t length, void *bytes))
{
	uint64_t offset;

	for (offset = 0; offset < size;) {
		uint64_t length = size - offset < sizeof(chunk) ? size - offset : sizeof(chunk);
		uint64_t done = 0;
		int problem = content(context, offset, length, chunk);

		if (problem)
			return problem;
		while (done < length) {
			s64 written = ntfs_attr_pwrite(data, offset + done, length - done,
						       chunk + done);
			if (written <= 0)
				return failure();
			done += written;
		}
		offset += length;
	}
	return 0;
}

int ce_write(struct ce_volume *volume, uint64_t file, uint64_t size, void *context,
	     int (*content)(void *context, uint64_t offset, uint64_t length, void *bytes))
{
	ntfs_inode *inode;
	ntfs_attr *data;
	int problem = open_file(volume, file, &inode);

	if (problem)
		return problem;
	errno = 0;
	data = ntfs_attr_open(inode, AT_DATA, AT_UNNAMED, 0);
	if (!data) {
		problem = failure();
	} else if (data->data_flags & (ATTR_COMPRESSION_MASK | ATTR_IS_SPARSE | ATTR_IS_ENCRYPTED)) {
		problem = EOPNOTSUPP;
	} else if (ntfs_attr_truncate_solid(data, size)) {
		problem = failure();
	} else {
		problem = fill(data, size, context, content);
		inode->flags |= FILE_ATTR_ARCHIVE;
		NInoFileNameSetDirty(inode);
		ntfs_inode_update_times(inode, NTFS_UPDATE_MCTIME);
	}
	if (data)
		ntfs_attr_close(data);
	return keep_first(problem, close_file(inode));
}

int ce_change(struct ce_volume *volume, uint64_t file, const struct ce_changes *changes)
{
	/* FILE_ATTRIBUTE_ READONLY HIDDEN SYSTEM ARCHIVE TEMPORARY OFFLINE NOT_CONTENT_INDEXED */
	const FILE_ATTR_FLAGS settable = const_cpu_to_le32(0x3127);
	ntfs_inode *inode;
	int problem = open_file(volume, file, &inode);

	if (problem)
		return problem;
	if (changes->set_attributes) {
		inode->flags = (inode->flags & ~settable)
			| (cpu_to_le32(changes->attributes) & settable);
		NInoFileNameSetDirty(inode);
		NInoSetDirty(inode);
	}
	if (changes->set_times) {
		uint64_t times[3] = { changes->created, changes->modified, changes->accessed };

		errno = 0;
		if (ntfs_inode_set_times(inode, (const char *)times, sizeof(times), 0))
			problem = failure();
	}
	return keep_first(problem, close_file(inode));
}

/* Nobody in particular, who owns nothing: what is inherited keeps the owner of the folder. */
static struct SECURITY_CONTEXT nobody(struct ce_volume *volume)
{
	struct SECURITY_CONTEXT context = {
		.vol = volume->volume,
		.pseccache = &volume->permissions,
	};

	return context;
}

int ce_inherited(struct ce_volume *volume, uint64_t folder, int is_folder, uint32_t *security_id)
{
	struct SECURITY_CONTEXT context = nobody(volume);
	ntfs_inode *inode;
	int problem = open_file(volume, folder, &inode);

	if (problem)
		return problem;
	errno = 0;
	*security_id = le32_to_cpu(ntfs_inherited_id(&context, inode, is_folder));
	if (!*security_id)
		problem = failure();
	return keep_first(problem, close_file(inode));
}

int ce_read_security(struct ce_volume *volume, uint64_t file, uint8_t *descriptor,
		     uint32_t capacity, uint32_t *length)
{
	struct SECURITY_CONTEXT context = nobody(volume);
	ntfs_inode *inode;
	int found;
	int problem = open_file(volume, file, &inode);

	if (problem)
		return problem;
	errno = 0;
	found = ntfs_get_ntfs_acl(&context, inode, (char *)descriptor, capacity);
	if (found <= 0)
		problem = failure();
	else if ((uint32_t)found > capacity)
		problem = ERANGE;
	else
		*length = found;
	return keep_first(problem, close_file(inode));
}

int ce_write_security(struct ce_volume *volume, uint64_t file, const uint8_t *descriptor,
		      uint32_t length)
{
	struct SECURITY_CONTEXT context = nobody(volume);
	ntfs_inode *inode;
	int problem = open_file(volume, file, &inode);

	if (problem)
		return problem;
	errno = 0;
	if (ntfs_set_ntfs_acl(&context, inode, (const char *)descriptor, length, 0))
		problem = failure();
	return keep_first(problem, close_file(inode));
}

int ce_read_short_name(struct ce_volume *volume, uint64_t folder, uint64_t file, char *name,
		       uint32_t capacity)
{
	ntfs_inode *parent, *inode;
	int length, problem;

	/* Only the number of the folder is asked for: it need not stay open. */
	problem = open_file(volume, folder, &parent);
	if (problem)
		return problem;
	problem = open_file(volume, file, &inode);
	if (problem) {
		close_file(parent);
		return problem;
	}
	errno = 0;
	length = ntfs_get_ntfs_dos_name(inode, parent, name, capacity - 1);
	if (length < 0 && length != -ENODATA)
		problem = -length;
	name[length > 0 && (uint32_t)length < capacity ? length : 0] = 0;
	problem = keep_first(problem, close_file(inode));
	return keep_first(problem, close_file(parent));
}

int ce_write_short_name(struct ce_volume *volume, uint64_t folder, uint64_t file,
			const char *name)
{
	ntfs_inode *parent, *inode;
	int problem = open_file(volume, folder, &parent);

	if (problem)
		return problem;
	problem = open_file(volume, file, &inode);
	if (problem) {
		close_file(parent);
		return problem;
	}
	errno = 0;
	/* Closes both, whatever comes of it. */
	return ntfs_set_ntfs_dos_name(inode, parent, name, strlen(name), 0) ? failure() : 0;
}
