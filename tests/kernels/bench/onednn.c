/* The same products by oneDNN, where the Makefile found version 2 of it (Debian's libdnnl-dev). */
#include "bench.h"

#if defined(HAVE_ONEDNN)

#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the OpenMP library that oneDNN brings, if it is built with one. */
extern void omp_set_num_threads(int n) __attribute__((weak));

struct product {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    dnnl_exec_arg_t args[3];
};

static void product_work(const struct compute *c, void *arg)
{
    const struct product *p = arg;
    (void)c;
    dnnl_primitive_execute(p->primitive, p->stream, 3, p->args);
    dnnl_stream_wait(p->stream);
}

static bool make_memory(dnnl_memory_t *out, const dnnl_memory_desc_t *desc, dnnl_engine_t engine)
{
    void *data;
    if (dnnl_memory_create(out, desc, engine, DNNL_MEMORY_ALLOCATE) || dnnl_memory_get_data_handle(*out, &data))
        return false;
    memset(data, 0, dnnl_memory_desc_get_size(desc)); /* 0 in every type */
    return true;
}

double onednn_ns(const struct compute *c, enum tensor_type type, int rows, int cols, int outputs)
{
    const dnnl_data_type_t of_x = type == TENSOR_F32 ? dnnl_f32 : tensor_is_float(type) ? dnnl_bf16 : dnnl_u8;
    const dnnl_data_type_t of_w = of_x == dnnl_u8 ? dnnl_s8 : of_x;
    const dnnl_data_type_t of_out = of_x == dnnl_u8 ? dnnl_s32 : dnnl_f32;
    const dnnl_dims_t x_dims = {rows, cols}, w_dims = {cols, outputs}, out_dims = {rows, outputs};
    dnnl_memory_desc_t x, w, out;
    dnnl_matmul_desc_t matmul;
    dnnl_engine_t engine = NULL;
    dnnl_primitive_desc_t described = NULL;
    dnnl_memory_t memory[3] = {NULL};
    struct product p = {.primitive = NULL};
    double ns = 0;

    if (omp_set_num_threads)
        omp_set_num_threads(pool_threads(c->pool));
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) || dnnl_stream_create(&p.stream, engine, dnnl_stream_default_flags) ||
        dnnl_memory_desc_init_by_tag(&x, 2, x_dims, of_x, dnnl_ab) ||
        dnnl_memory_desc_init_by_tag(&w, 2, w_dims, of_w, dnnl_format_tag_any) ||
        dnnl_memory_desc_init_by_tag(&out, 2, out_dims, of_out, dnnl_ab) ||
        dnnl_matmul_desc_init(&matmul, &x, &w, NULL, &out) ||
        dnnl_primitive_desc_create(&described, &matmul, NULL, engine, NULL) ||
        dnnl_primitive_create(&p.primitive, described))
        goto end;
    const dnnl_memory_desc_t *best = dnnl_primitive_desc_query_md(described, dnnl_query_weights_md, 0);
    if (!make_memory(&memory[0], &x, engine) || !make_memory(&memory[1], best, engine) ||
        !make_memory(&memory[2], &out, engine))
        goto end;
    p.args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, memory[0]};
    p.args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, memory[1]};
    p.args[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, memory[2]};
    ns = time_ns(c, product_work, &p);
end:
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(memory[i]);
    dnnl_primitive_destroy(p.primitive);
    dnnl_primitive_desc_destroy(described);
    dnnl_stream_destroy(p.stream);
    dnnl_engine_destroy(engine);
    return ns;
}

#else

double onednn_ns(const struct compute *c, enum tensor_type type, int rows, int cols, int outputs)
{
    (void)c, (void)type, (void)rows, (void)cols, (void)outputs;
    return 0;
}

#endif
