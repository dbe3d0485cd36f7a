#!/bin/bash
inputFile=${OHPC_INPUT_LOCAL:-/input.local}
if [ ! -e ${inputFile} ];then
    echo "Error: Unable to access local input file -> ${inputFile}"
    exit 1
fi
export CHROOT=/opt/ohpc/admin/images/rocky8.8
wwmkchroot -v rocky-8 $CHROOT
c_ipoib[$i]=1
