/* assets.S - every file of web/ as bytes in the program, and the table that names them. The list
 * (assets.inc: one `asset "name"` a line) is written by the Makefile. */
    .macro asset file
    .section .rodata.tt_asset, "a"
7771:
    .asciz "\file"
7772:
    .incbin "web/\file"
7773:
    .byte 0
    .section .data.rel.ro.tt_embedded_assets, "aw"
    .balign 8
    .quad 7771b, 7772b, 7773b
    .endm

    .section .data.rel.ro.tt_embedded_assets, "aw"
    .balign 8
    .global tt_embedded_assets
    .hidden tt_embedded_assets
tt_embedded_assets:
#include "assets.inc"
    .section .data.rel.ro.tt_embedded_assets, "aw"
    .quad 0, 0, 0

    .section .note.GNU-stack, "", %progbits
