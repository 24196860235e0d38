/* Standard output, every write checked: an answer that did not arrive is a failure. */
#ifndef WARD_CLI_OUTPUT_H
#define WARD_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void output_bytes(const void *bytes, size_t length);
void output_text(const char *text);
/* "2.386 GB", "0.98 MB" */
const char *output_size(char out[24], uint64_t bytes);
/* As output_text, but on a terminal control characters other than newline and tab are shown as '?': neither a model
 * nor what it was asked about may send commands to the terminal. */
void output_untrusted(const char *text, size_t length);
/* Hands what is buffered to the system. A closed pipe ends the program with status 1 and no word, any other failure
 * with a sentence. */
void output_flush(void);
struct json_writer;
/* What a writer holds, as a line; frees it. NULL, or one whose memory ran out, ends the program. */
void output_json_line(struct json_writer **writer);
bool output_is_terminal(void);

#endif
