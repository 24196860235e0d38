#include "bench_report.h"
#include "bench_plot.h"
#include "bench_view.h"
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Light, dark and on paper. */
static const char STYLE[] =
    ":root{--ink:#1b2228;--soft:#5d6973;--rule:#d8dee3;--panel:#f5f7f8;--page:#fff;--image:#98a6b1;\n"
    "  --vision:#2a6a96;--prefill:#6aa5bf;--first:#d3a83c;--decode:#4b8b68;--pass:#1c6b43;\n"
    "  --passbg:#e2f1e8;--fail:#9d241c;--failbg:#f9e5e3;--note:#7a5a0c;--notebg:#fbf3dc}\n"
    "@media (prefers-color-scheme:dark){:root{--ink:#e3e8eb;--soft:#98a4ad;--rule:#2d353c;\n"
    "  --panel:#1b2126;--page:#13171a;--image:#7d8b96;--vision:#4d93c4;--prefill:#86bfd8;--first:#dfba5c;\n"
    "  --decode:#69ad88;--pass:#84d3a6;--passbg:#17322444;--fail:#f2a59d;--failbg:#3d1d1a;--note:#e6cd86;\n"
    "  --notebg:#332a12}\n"
    "}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,\n"
    "  \"Segoe UI\",Roboto,\"Noto Sans\",\"DejaVu Sans\",sans-serif;font-variant-numeric:tabular-nums}\n"
    "main{max-width:1180px;margin:0 auto;padding:40px 32px 64px}\n"
    "header{border-bottom:2px solid var(--ink);margin-bottom:28px;padding-bottom:18px}\n"
    ".over{color:var(--soft);letter-spacing:.04em;margin:0}\n"
    "h1{font-size:30px;line-height:1.2;margin:2px 0 10px;font-weight:650}\n"
    "header p{margin:2px 0;color:var(--soft)}\n"
    "h2{font-size:18px;margin:40px 0 10px;font-weight:650}\n"
    "h2.result{border-top:1px solid var(--rule);padding-top:26px}\n"
    ".note{color:var(--soft);font-size:13px;margin:8px 0 0;max-width:80ch}\n"
    "aside{background:var(--notebg);color:var(--note);border-left:4px solid;padding:10px 16px;\n"
    "  margin:0 0 10px;border-radius:0 4px 4px 0}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;margin:14px 0 22px;\n"
    "  padding:1px}\n"
    ".cards div{background:var(--panel);padding:12px 16px;box-shadow:0 0 0 1px var(--rule)}\n"
    ".cards dt{color:var(--soft);font-size:13px}\n"
    ".cards dd{margin:2px 0 0;font-size:22px;font-weight:600;line-height:1.25}\n"
    ".cards small{display:block;font-size:13px;font-weight:400;color:var(--soft)}\n"
    "dl{margin:0}\n"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));\n"
    "  gap:26px 36px}\n"
    "figure{margin:0}\n"
    "figcaption{font-weight:600;margin-bottom:8px}\n"
    "svg{width:100%;height:auto;display:block}\n"
    "svg text{font-size:12px;fill:var(--soft)}\n"
    "svg .n{text-anchor:end}\n"
    "svg .m{text-anchor:middle}\n"
    ".grid{stroke:var(--rule)}\n"
    ".axis{stroke:var(--soft)}\n"
    "path.target{stroke:var(--fail);stroke-dasharray:5 4}\n"
    "svg text.target{fill:var(--fail)}\n"
    ".line{fill:none;stroke:var(--vision);stroke-width:2.5;stroke-linejoin:round}\n"
    ".private,.bp{fill:var(--vision);background:var(--vision)}\n"
    ".mapped,.bm{fill:var(--image);background:var(--image)}\n"
    ".s0,.b0{fill:var(--image);background:var(--image)}\n"
    ".s1,.b1{fill:var(--vision);background:var(--vision)}\n"
    ".s2,.b2{fill:var(--prefill);background:var(--prefill)}\n"
    ".s3,.b3{fill:var(--first);background:var(--first)}\n"
    ".s4,.b4{fill:var(--decode);background:var(--decode)}\n"
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;padding:0;margin:8px 0 0;\n"
    "  font-size:13px}\n"
    ".legend i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px}\n"
    ".legend span{color:var(--soft)}\n"
    ".wide{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:14px;min-width:100%}\n"
    "th,td{text-align:left;padding:6px 16px 6px 0;border-bottom:1px solid var(--rule);white-space:nowrap}\n"
    "th{color:var(--soft);font-weight:600;font-size:13px;border-bottom-color:var(--soft)}\n"
    "td:last-child,th:last-child{padding-right:0}\n"
    "td:first-child,th:first-child{width:1%;padding-right:18px}\n"
    ".r{text-align:right}\n"
    "td.t{white-space:pre-wrap}\n"
    ".v{font-weight:700;font-size:12px;letter-spacing:.04em;padding:2px 8px;border-radius:3px}\n"
    ".PASS{color:var(--pass);background:var(--passbg)}\n"
    ".FAIL{color:var(--fail);background:var(--failbg)}\n"
    "footer{margin-top:48px;border-top:1px solid var(--rule);padding-top:14px;color:var(--soft);\n"
    "  font-size:13px}\n"
    "@media (max-width:600px){main{padding:24px 16px 40px}\n"
    "h1{font-size:24px}\n"
    ".cards{grid-template-columns:1fr 1fr}\n"
    ".cards dd{font-size:19px}\n"
    "}\n"
    "@page{size:A4;margin:14mm}\n"
    "@media print{:root{--ink:#000;--soft:#444;--rule:#bbb;--panel:#f4f4f4;--page:#fff;--image:#98a6b1;\n"
    "  --vision:#2a6a96;--prefill:#6aa5bf;--first:#d3a83c;--decode:#4b8b68;--pass:#1c6b43;\n"
    "  --passbg:#e2f1e8;--fail:#9d241c;--failbg:#f9e5e3;--note:#444;--notebg:#f4f4f4}\n"
    "body{font-size:10pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}\n"
    "main{max-width:none;padding:0}\n"
    ".wide{overflow:visible}\n"
    "table{font-size:7.5pt}\n"
    "th{font-size:7pt}\n"
    "th,td{padding:3px 7px 3px 0;white-space:normal}\n"
    ".plots{grid-template-columns:1fr 1fr;gap:14px 22px}\n"
    ".cards{grid-template-columns:repeat(6,1fr)}\n"
    ".cards div{padding:8px 10px}\n"
    ".cards dd{font-size:12pt}\n"
    ".v{font-size:6.5pt;padding:1px 5px}\n"
    "figure,.cards,tr,aside{break-inside:avoid}\n"
    "h2{break-after:avoid;margin-top:18px}\n"
    "}\n";

/* Text in which nothing is markup. */
static void put(FILE *out, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        default:
            if ((unsigned char)*text >= 0x20 && *text != 0x7f)
                fputc(*text, out);
        }
}

static void put_table(FILE *out, const struct table *t)
{
    fputs("<section><h2>", out);
    put(out, t->title);
    fputs("</h2>\n<div class=\"wide\" tabindex=\"0\"><table><thead><tr>", out);
    for (size_t c = 0; c < t->n_heads; c++) {
        fputs(table_is_numeric(t, c) ? "<th class=\"r\">" : "<th>", out);
        put(out, t->heads[c]);
        fputs("</th>", out);
    }
    fputs("</tr></thead><tbody>\n", out);
    for (size_t i = 0; i < t->n_cells; i++) {
        const char *text = t->cells[i];
        const bool verdict = strcmp(text, "PASS") == 0 || strcmp(text, "FAIL") == 0;
        if (i % t->n_heads == 0)
            fputs(i ? "</tr>\n<tr>" : "<tr>", out);
        const bool number = table_is_numeric(t, i % t->n_heads);
        fputs(number ? "<td class=\"r\">" : text[0] == ' ' ? "<td class=\"t\">" : "<td>", out);
        if (verdict)
            fprintf(out, "<span class=\"v %s\">", text);
        put(out, strcmp(text, "-") == 0 ? "–" : text);
        fputs(verdict ? "</span></td>" : "</td>", out);
    }
    fputs(t->n_cells ? "</tr>\n</tbody></table></div>\n" : "</tbody></table></div>\n", out);
    if (t->note) {
        fputs("<p class=\"note\">", out);
        put(out, t->note);
        fputs("</p>", out);
    }
    fputs("</section>\n", out);
}

static void put_card(FILE *out, const char *name, const char *value, const char *unit, const char *small)
{
    fprintf(out, "<div><dt>%s</dt><dd>%s%s%s", name, value, *unit ? " " : "", unit);
    if (*small)
        fprintf(out, "<small>%s</small>", small);
    fputs("</dd></div>\n", out);
}

static void put_cards(FILE *out, const struct json *r)
{
    char value[VIEW_TEXT], other[VIEW_TEXT], small[3 * VIEW_TEXT];
    const struct json *pass = at(r, "target.pass");
    fputs("<dl class=\"cards\">\n", out);
    snprintf(small, sizeof small, "± %s", show_number(other, number_at(r, "latency_ms.std")));
    put_card(out, "whole answer, mean", show_number(value, number_at(r, "latency_ms.mean")), "ms", small);
    if (pass && (pass->type == JSON_TRUE || pass->type == JSON_FALSE)) {
        snprintf(small, sizeof small, "<span class=\"v %s\">%s</span>", pass->type == JSON_TRUE ? "PASS" : "FAIL",
                 pass->type == JSON_TRUE ? "PASS" : "FAIL");
        put_card(out, "target", show_number(value, number_at(r, "target.ms")), "ms", small);
    }
    put_card(out, "to the first token", show_number(value, number_at(r, "ttft_ms.mean")), "ms", "");
    put_card(out, "decode", show_number(value, number_at(r, "throughput.decode_tps")), "", "tokens/s");
    put_card(out, "prefill", show_number(value, number_at(r, "throughput.prefill_tps")), "", "tokens/s");
    put_card(out, "memory, peak", show_bytes(value, number_at(r, "memory.peak")), "", "");
    fputs("</dl>\n", out);
}

static void put_result(FILE *out, const struct json *r, int number)
{
    char test[VIEW_TEXT];
    fprintf(out, "<section><h2 class=\"result\">%d. ", number);
    put(out, text_at(r, "model.name"));
    fputs(" (", out);
    put(out, text_at(r, "model.type"));
    fprintf(out, "%s): %s</h2>\n", true_at(r, "model.random_weights") ? ", random weights" : "", show_test(test, r));
    put_cards(out, r);
    fputs("<div class=\"plots\">\n<div>", out);
    plot_runs(out, r);
    fputs("</div>\n<div>", out);
    plot_stage_bar(out, r);
    fputs("</div>\n<div>", out);
    plot_memory(out, r);
    fputs("</div>\n<div>", out);
    plot_decode(out, r);
    fputs("</div>\n</div></section>\n", out);
}

char *bench_report(const struct json *document, size_t *length)
{
    char *page = NULL, text[512], notice[200];
    struct tables tables;
    FILE *out = open_memstream(&page, length);
    if (!out)
        die("out of memory");
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" "
          "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<link rel=\"icon\" href=\"data:,\">\n<title>ward bench</title>\n<style>\n", out);
    fputs(STYLE, out);
    fputs("</style></head><body><main>\n<header><p class=\"over\">ward bench, ", out);
    put(out, text_at(document, "started"));
    fputs("</p>\n<h1>", out);
    put(out, text_at(document, "environment.cpu"));
    fputs("</h1>\n<p>", out);
    view_machine(text, document);
    put(out, text);
    fputs("</p>\n<p>", out);
    view_protocol(text, document);
    put(out, text);
    fputs("</p></header>\n", out);
    for (size_t i = 0; view_notice(notice, document, i); i++) {
        fputs("<aside>", out);
        put(out, notice);
        fputs("</aside>\n", out);
    }
    int number = 1;
    const struct json *results = json_get(document, "results");
    tables_make(&tables, document);
    put_table(out, &tables.at[0]);
    for (const struct json *r = results ? results->first : NULL; r; r = r->next)
        put_result(out, r, number++);
    for (size_t i = 1; i < tables.n; i++)
        put_table(out, &tables.at[i]);
    tables_free(&tables);
    fputs("<footer>Made by ward ", out);
    put(out, text_at(document, "ward"));
    fputs(". The image and the question are named by SHA-256 in the JSON that this page was made from, never by file "
          "name. Not a medical device.</footer>\n</main></body></html>\n", out);
    if (fclose(out) || !page)
        die("out of memory");
    return page;
}
