/* Ollama's store: manifests/HOST/NAMESPACE/NAME/TAG lists the blobs of a model, blobs/sha256-HEX are its files. */
#include "base/json.h"
#include "base/mapping.h"
#include "model/locate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANIFEST_LIMIT = 1 << 20, DIGEST_HEX = 64 };

static char *store_folder(void)
{
    const char *value = getenv("OLLAMA_MODELS"), *home = getenv("HOME");
    char *folder = NULL;
    if (value && *value)
        return strdup(value);
    if (!home || !*home || asprintf(&folder, "%s/.ollama/models", home) < 0)
        return NULL;
    return folder;
}

/* [[HOST/]NAMESPACE/]NAME[:TAG]: nothing that leads out of the store. */
static bool is_store_name(const char *name)
{
    size_t slashes = 0, colons = 0;
    for (const char *at = name; *at; at++) {
        const bool begins = at == name || at[-1] == '/';
        if (begins && strchr("./:~", *at))
            return false;
        slashes += *at == '/';
        colons += *at == ':';
        if (colons && *at == '/')
            return false; /* a port of a host is not supported */
    }
    const char *colon = strchr(name, ':');
    return *name && slashes <= 2 && colons <= 1 && name[strlen(name) - 1] != '/' &&
           (!colon || (colon[1] && colon[1] != '.'));
}

static char *manifest_path(const char *store, const char *name)
{
    static const char *const prefixes[] = {"registry.ollama.ai/library/", "registry.ollama.ai/", ""};
    const char *colon = strchr(name, ':');
    const int length = (int)(colon ? (size_t)(colon - name) : strlen(name));
    int slashes = 0;
    for (const char *at = name; *at; at++)
        slashes += *at == '/';
    char *path;
    return asprintf(&path, "%s/manifests/%s%.*s/%s", store, prefixes[slashes], length, name,
                    colon ? colon + 1 : "latest") < 0
               ? NULL
               : path;
}

/* The blob of the layer of one kind; NULL when there is none. */
static int find_layer(char **blob, const struct json *manifest, const char *kind, const char *store, const char *path,
                      struct ward_error *err)
{
    const struct json *layers = json_get(manifest, "layers");
    for (const struct json *layer = layers && layers->type == JSON_ARRAY ? layers->first : NULL; layer;
         layer = layer->next) {
        const struct json *digest = json_get(layer, "digest");
        if (!json_string_is(json_get(layer, "mediaType"), kind))
            continue;
        if (!digest || digest->type != JSON_STRING || digest->length != 7 + DIGEST_HEX ||
            strncmp(digest->text, "sha256:", 7) || strspn(digest->text + 7, "0123456789abcdef") != DIGEST_HEX)
            return error_set(err, WARD_EFORMAT, "%s: the digest of a layer is not \"sha256:\" and %d hex digits", path,
                             DIGEST_HEX);
        if (asprintf(blob, "%s/blobs/sha256-%s", store, digest->text + 7) < 0) {
            *blob = NULL;
            return error_no_memory(err, "a path", strlen(store));
        }
        return 0;
    }
    return 0;
}

static int read_manifest(struct model_place *out, const char *store, const char *path, struct ward_error *err)
{
    struct json_document *document;
    int rc = json_read(&document, path, MANIFEST_LIMIT, err);
    if (rc)
        return rc;
    const struct json *root = json_root(document);
    rc = find_layer(&out->path, root, "application/vnd.ollama.image.model", store, path, err);
    if (!rc && !out->path)
        rc = error_set(err, WARD_EFORMAT, "%s: names no layer of the kind application/vnd.ollama.image.model", path);
    if (!rc)
        rc = find_layer(&out->mmproj, root, "application/vnd.ollama.image.projector", store, path, err);
    json_close(&document);
    return rc;
}

int find_in_ollama(struct model_place *out, const char *name, struct ward_error *err)
{
    if (!is_store_name(name))
        return 0;
    char *store = store_folder();
    char *path = store ? manifest_path(store, name) : NULL;
    int rc = 0;
    if (store && !path)
        rc = error_no_memory(err, "a path", strlen(name));
    else if (path && file_exists(path))
        rc = read_manifest(out, store, path, err);
    out->is_gguf = out->path != NULL;
    free(store);
    if (out->path)
        out->found_by = path;
    else
        free(path);
    return rc;
}
