#include "bench/card_facts.h"

#include "base/json.h"

#include <stdio.h>

int card_facts_read(struct card_facts *out, int index, struct ward_error *err)
{
    struct card *card = card_open(index, err);
    *out = (struct card_facts){.driver = ""};
    if (!card)
        return WARD_EUNSUPPORTED;
    out->info = *card_info(card);
    out->free_bytes = card_free(card);
    out->meter = nvml_open(out->info.index, NULL);
    out->driver = nvml_driver();
    size_t own, peak;
    card_used(card, &own, &peak);
    const size_t all = out->meter ? nvml_process_bytes(out->meter) : 0;
    out->context_bytes = all > own ? all - own : 0;
    return 0;
}

void card_facts_write_json(struct json_writer *w, const char *key, const struct card_facts *f)
{
    char cuda[32];
    snprintf(cuda, sizeof cuda, "%d.%d", f->info.cuda / 1000, f->info.cuda % 1000 / 10);
    json_write_open(w, key, '{');
    json_write_text(w, "name", f->info.name);
    json_write_integer(w, "index", f->info.index);
    json_write_text(w, "kernels", f->info.kernels);
    json_write_integer(w, "multiprocessors", f->info.multiprocessors);
    json_write_integer(w, "memory_bytes", (int64_t)f->info.memory);
    json_write_integer(w, "free_bytes", (int64_t)f->free_bytes);
    if (f->context_bytes)
        json_write_integer(w, "context_bytes", (int64_t)f->context_bytes);
    else
        json_write_null(w, "context_bytes");
    json_write_integer(w, "cache_bytes", (int64_t)f->info.cache);
    json_write_text(w, "driver", *f->driver ? f->driver : NULL);
    json_write_text(w, "cuda", f->info.cuda ? cuda : NULL);
    json_write_close(w, '}');
}

void card_state_write_json(struct json_writer *w, const char *key, const struct nvml_state *s)
{
    if (!s) {
        json_write_null(w, key);
        return;
    }
    json_write_open(w, key, '{');
    json_write_number(w, "mhz", s->mhz, 0);
    json_write_number(w, "mhz_limit", s->mhz_limit, 0);
    json_write_number(w, "memory_mhz", s->memory_mhz, 0);
    json_write_number(w, "celsius", s->celsius, 0);
    json_write_number(w, "watts", s->watts, 1);
    json_write_number(w, "watts_limit", s->watts_limit, 1);
    json_write_boolean(w, "slowed", s->slowed);
    json_write_close(w, '}');
}
