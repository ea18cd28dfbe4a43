/* Declarations that C++ programs can use, too. Part of PyOuroboros, LGPL-2.1-or-later. */

#ifndef OUROBOROS_CDEFS_H
#define OUROBOROS_CDEFS_H

/* Most systems have these already. */
#ifndef __BEGIN_DECLS
#ifdef __cplusplus
#define __BEGIN_DECLS extern "C" {
#define __END_DECLS }
#else
#define __BEGIN_DECLS
#define __END_DECLS
#endif
#endif

#endif
